-- Questions to a directory of reports, one file a host and a day: `layerctl report -o HOST-DAY.jsonl`.
--
--   duckdb -init deploy/fleet.sql
--   SELECT * FROM hosts_with_layer('sha256:...');
--
-- `reports` is where they are: a pattern of files, or of a bucket ('s3://fleet/*.jsonl').
-- SET VARIABLE reports = 'reports/*.jsonl';

-- A column for each key that is asked for below. A path that is not UTF-8 reads as {"bytes": base64}. The files are read
-- once: run this again for newer ones.
CREATE OR REPLACE TABLE report AS
SELECT * REPLACE (CAST(time AS TIMESTAMP) AS time)
FROM read_json(getvariable('reports'), format = 'newline_delimited', columns = {
    schema_version: 'UINTEGER', host_id: 'VARCHAR', host: 'VARCHAR', time: 'VARCHAR', record: 'VARCHAR', drift: 'VARCHAR',
    -- host, end
    version: 'VARCHAR', live: 'BOOLEAN', kernel: 'VARCHAR', os: 'VARCHAR', has_changes: 'BOOLEAN',
    complete: 'BOOLEAN', problem_count: 'BIGINT', row_count: 'BIGINT', seconds: 'DOUBLE',
    -- what containers, images, layers and stores have
    target: 'VARCHAR', engine: 'VARCHAR', id: 'VARCHAR', name: 'VARCHAR', image: 'VARCHAR', image_id: 'VARCHAR',
    tags: 'VARCHAR[]', state: 'VARCHAR', created: 'VARCHAR', namespace: 'VARCHAR', driver: 'VARCHAR', store: 'VARCHAR',
    pod: 'STRUCT(name VARCHAR, namespace VARCHAR, container VARCHAR)',
    layer: 'VARCHAR', kind: 'VARCHAR', diff_id: 'VARCHAR', chain_id: 'VARCHAR', directory: 'VARCHAR',
    containers: 'STRUCT(id VARCHAR, name VARCHAR, namespace VARCHAR)[]',
    images: 'STRUCT(id VARCHAR, tags VARCHAR[], layer_number BIGINT, layer_count BIGINT)[]',
    size: 'BIGINT', disk: 'BIGINT', files: 'BIGINT', logs: 'BIGINT',
    -- orphans, findings, changes, problems
    path: 'VARCHAR', why: 'VARCHAR', command: 'VARCHAR', finding: 'VARCHAR', branch: 'BIGINT', entry: 'VARCHAR', means: 'VARCHAR',
    change: 'VARCHAR', container: 'VARCHAR', added_count: 'BIGINT', changed_count: 'BIGINT', deleted_count: 'BIGINT',
    copyup_count: 'BIGINT', copyup_disk: 'BIGINT', problem: 'VARCHAR'
});

-- The last whole report of each host.
CREATE OR REPLACE TABLE latest AS
SELECT report.* FROM report
JOIN (SELECT host_id, max(time) AS time FROM report WHERE record = 'end' GROUP BY host_id) AS last USING (host_id, time);

-- Which hosts run an image that has this layer, and in what?
CREATE OR REPLACE MACRO hosts_with_layer(digest) AS TABLE
SELECT DISTINCT c.host_id, c.host, c.target AS container, c.state, c.image
FROM (SELECT host_id, engine, unnest(images).id AS image_id FROM latest
      WHERE record = 'layer' AND diff_id = digest) AS l
JOIN latest AS c ON c.record = 'container' AND c.host_id = l.host_id AND c.engine = l.engine AND c.image_id = l.image_id
ORDER BY ALL;

-- Which hosts have an image by this name, and is it the same one everywhere?
CREATE OR REPLACE MACRO hosts_with_image(tag) AS TABLE
SELECT id, count(DISTINCT host_id) AS hosts, list(DISTINCT host_id ORDER BY host_id) AS which
FROM latest WHERE record = 'image' AND list_contains(tags, tag) GROUP BY id ORDER BY hosts DESC, id;

-- Where did containers add or change a file with such a name ('log4j-core-%.jar')? Reports need --changes.
CREATE OR REPLACE MACRO changed_files(pattern) AS TABLE
SELECT host_id, host, target AS container, change, path
FROM latest WHERE record = 'change' AND change <> 'deleted' AND parse_filename(path) LIKE pattern ORDER BY ALL;

-- Which containers grew since a moment, against the last report before it? Bytes on disk of their own layer, configuration, logs.
CREATE OR REPLACE MACRO grown_since(moment) AS TABLE
WITH earlier AS (
    SELECT host_id, engine, id, arg_max(disk, time) AS disk FROM report
    WHERE record = 'space' AND kind = 'container' AND time <= CAST(moment AS TIMESTAMP) GROUP BY ALL
)
SELECT now.host_id, now.host, now.target AS container, now.disk - coalesce(earlier.disk, 0) AS grown, now.disk
FROM latest AS now LEFT JOIN earlier USING (host_id, engine, id)
WHERE now.record = 'space' AND now.kind = 'container' AND now.disk > coalesce(earlier.disk, 0)
ORDER BY grown DESC, now.host_id, now.host, container;

-- What is left over in the fleet, by kind and reason?
CREATE OR REPLACE VIEW orphans_by_reason AS
SELECT engine, kind, why, count(*) AS orphans, count(DISTINCT host_id) AS hosts, sum(disk) AS disk
FROM latest WHERE record = 'orphan' GROUP BY ALL ORDER BY disk DESC NULLS LAST, engine, kind, why;

-- How much could be freed on each host?
CREATE OR REPLACE VIEW free_by_host AS
SELECT host_id, any_value(host) AS host, coalesce(sum(disk) FILTER (record = 'orphan'), 0) AS orphaned,
    coalesce(sum(disk) FILTER (record = 'unused'), 0) AS unused
FROM latest WHERE record IN ('orphan', 'unused') GROUP BY host_id ORDER BY orphaned + unused DESC, host_id;

-- Of which hosts is not everything known?
CREATE OR REPLACE VIEW not_known AS
SELECT host_id, host, time, problem, path FROM latest WHERE record = 'problem'
UNION ALL
SELECT host_id, any_value(host), max(time), 'the report has no end', NULL FROM report
GROUP BY host_id HAVING NOT bool_or(record = 'end') ORDER BY ALL;
