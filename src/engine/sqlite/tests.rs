use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::journal::roll_back;
use super::{Database, read};
use crate::bytes::Bytes;
use crate::host::Host;

fn names(database: &Database) -> Vec<String> {
    let rows = database.rows("things", &["name"]).unwrap();
    let mut names: Vec<String> = rows
        .into_iter()
        .map(|mut row| String::from_utf8(row.swap_remove(0)).unwrap())
        .collect();
    names.sort_unstable();
    names.iter().map(|name| name[..1].to_owned()).collect()
}

/// A database of many pages, with one thing in each.
fn make(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = delete; CREATE TABLE things(name TEXT);")
        .unwrap();
    for name in ["a", "b", "c"] {
        connection
            .execute("INSERT INTO things VALUES (?1)", [name.repeat(5000)])
            .unwrap();
    }
    connection
}

/// Copies a database and its journal in the middle of a transaction that has spilled to the file.
fn copy_hot(connection: &Connection, from: &Path, to: &Path) {
    connection
        .execute_batch("PRAGMA cache_size = 2; PRAGMA cache_spill = 2; BEGIN EXCLUSIVE")
        .unwrap();
    for _ in 0..20 {
        connection
            .execute("INSERT INTO things VALUES (?1)", ["z".repeat(5000)])
            .unwrap();
    }
    connection
        .execute("UPDATE things SET name = replace(name, 'a', 'y')", [])
        .unwrap();
    connection
        .execute("DELETE FROM things WHERE name LIKE 'b%'", [])
        .unwrap();
    for suffix in ["", "-journal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(name(from), name(to)).unwrap();
    }
}

#[test]
fn a_hot_journal_takes_back_what_a_copy_has_of_a_transaction() {
    let scratch = tempfile::tempdir().unwrap();
    let (live, copy) = (scratch.path().join("live"), scratch.path().join("copy"));
    let connection = make(&live);
    let before = fs::read(&live).unwrap();
    copy_hot(&connection, &live, &copy);
    let (mut bytes, journal) = (
        fs::read(&copy).unwrap(),
        fs::read(scratch.path().join("copy-journal")).unwrap(),
    );
    // The transaction had reached the file: without the journal it would be shown.
    assert_ne!(bytes, before);
    roll_back(&mut bytes, &journal);
    assert!(bytes == before);
    // Both as they lie, and SQLite itself says the same of them.
    let host = Host::open(scratch.path()).unwrap();
    assert_eq!(
        names(&read(&host, &Bytes::from("/copy")).unwrap()),
        ["a", "b", "c"]
    );
    assert_eq!(
        names(&read(&host, &Bytes::from("/live")).unwrap()),
        ["a", "b", "c"]
    );
    assert_eq!(
        fs::read(scratch.path().join("copy-journal")).unwrap(),
        journal
    );
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(
        names(&read(&host, &Bytes::from("/live")).unwrap()).len(),
        22
    );
    drop(connection);
    let own = Connection::open(&copy).unwrap();
    let count: i64 = own
        .query_row("SELECT count(*) FROM things", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 3);
    assert!(
        fs::read(&copy).unwrap() == before,
        "SQLite rolls back to other bytes"
    );
}

#[test]
fn a_journal_that_was_cleared_takes_back_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (live, copy) = (scratch.path().join("live"), scratch.path().join("copy"));
    let connection = make(&live);
    copy_hot(&connection, &live, &copy);
    let mut journal = fs::read(scratch.path().join("copy-journal")).unwrap();
    journal[..28].fill(0);
    let before = fs::read(&copy).unwrap();
    let mut bytes = before.clone();
    roll_back(&mut bytes, &journal);
    assert!(bytes == before);
}

#[test]
fn while_a_writer_commits_every_reading_is_of_one_transaction() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("live");
    let connection = make(&path);
    let host = Host::open(scratch.path()).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut round = 0;
        while stopped.try_recv().is_err() {
            round += 1;
            let sql = format!(
                "UPDATE things SET name = '{}'",
                round.to_string().repeat(3000)
            );
            connection.execute(&sql, []).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
    for _ in 0..40 {
        let rows = read(&host, &Bytes::from("/live")).map(|read| read.rows("things", &["name"]));
        let rows = match rows {
            Ok(rows) => rows.unwrap(),
            Err(error) => {
                assert!(error.to_string().contains("kept changing"), "{error}");
                continue;
            }
        };
        assert!(
            rows.windows(2)
                .all(|two| two[0] == two[1] || two[0][0][0].is_ascii_lowercase())
        );
    }
    stop.send(()).unwrap();
    writer.join().unwrap();
}

#[test]
fn what_a_hostile_database_says_is_not_run() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE VIEW things AS WITH RECURSIVE n(name) AS (SELECT 1 UNION ALL SELECT name + 1 FROM n) SELECT name FROM n;",
        )
        .unwrap();
    drop(connection);
    let database = Database::open(fs::read(&path).unwrap()).unwrap();
    assert_eq!(database.rows("things", &["name"]), Ok(Vec::new()));
}

#[test]
fn what_is_no_database_is_said() {
    assert!(Database::open(b"SQLite format 3\0 and no more".to_vec()).is_err());
    assert!(Database::open(vec![0xff; 9000]).is_err());
    let empty = Database::open(Vec::new()).unwrap();
    assert_eq!(empty.rows("things", &["name"]), Ok(Vec::new()));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(60))]

    #[test]
    fn spoilt_bytes_end(places in proptest::collection::vec((0.0..1.0f64, 0u8..), 1..20)) {
        static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let bytes = BYTES.get_or_init(|| {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("db");
            drop(make(&path));
            fs::read(&path).unwrap()
        });
        let mut bytes = bytes.clone();
        for (place, byte) in places {
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        if let Ok(database) = Database::open(bytes) {
            let _ = database.rows("things", &["name"]);
        }
    }

    #[test]
    fn no_journal_makes_the_rollback_panic(
        head in proptest::collection::vec(0u32.., 5),
        rest in proptest::collection::vec(0u8.., 0..2000),
    ) {
        let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        for (number, size) in head.into_iter().zip([u32::MAX, u32::MAX, 8, 0, 0]) {
            let number = if size == 0 { 512 } else { number & size };
            journal.extend(number.to_be_bytes());
        }
        journal.extend(rest);
        roll_back(&mut vec![1; 2048], &journal);
    }
}
