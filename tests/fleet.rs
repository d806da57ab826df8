//! What `deploy/` has, tried with the programs that it is for: DuckDB asks a thousand reports, Prometheus
//! checks and loads the rules, node_exporter hands out what `metrics` wrote.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::host::Host;
use crate::lab::{needs, skip};

fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// Runs a program and demands that it ends well: what it said.
#[track_caller]
fn runs(command: &mut Command) -> String {
    let output = command.output().expect("it is there");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

/// A Python that has DuckDB: that of the environment, or the system's.
fn python_with_duckdb() -> String {
    let python = std::env::var("LAYERCTL_PYTHON").unwrap_or_else(|_| "python3".into());
    let imported = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !imported.is_ok_and(|output| output.status.success()) {
        skip("no Python here has DuckDB (pip install duckdb; LAYERCTL_PYTHON names it)");
    }
    python
}

#[apply(test)]
fn duckdb_answers_what_is_asked_of_a_thousand_hosts() {
    let python = python_with_duckdb();
    needs::captured_hosts();
    let home = tempfile::tempdir().expect("a temporary directory");
    let bases = [
        "docker-28-overlay2",
        "docker-28-containerd",
        "containerd-2.1",
        "podman-5.8-overlay",
        "podman-5.8-composefs",
    ];
    let mut command = Command::new(python);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/queries.py");
    command.arg(script).arg(deploy("fleet.sql")).arg("1000");
    for name in bases {
        let base = home.path().join(name);
        let to = base.to_str().expect("UTF-8");
        let host = Host::captured(name);
        host.ask(["report", "--changes", "-o", to]).exits(0);
        command.arg(base);
    }
    let said = runs(&mut command);
    assert!(
        said.contains("1000 hosts, ") && said.contains("all answers are right"),
        "{said}"
    );
}

#[apply(test)]
fn the_alert_rules_fire_when_they_should() {
    needs::program("promtool", "--version");
    runs(Command::new("promtool").args(["check", "rules", &deploy("alerts.yml")]));
    let said = runs(Command::new("promtool").args(["test", "rules", &deploy("alerts.test.yml")]));
    assert!(said.contains("SUCCESS"), "{said}");
}

/// The dashboard and the rules name metrics that there are.
#[apply(test)]
fn rules_and_dashboard_name_metrics_that_there_are() {
    let host = Host::copy_of("blog-host");
    host.file("/var/lib/docker/aufs/diff/lost/file", "1");
    let metrics = host.ask(["metrics"]).exits(0);
    for name in ["alerts.yml", "grafana.json"] {
        let text = fs::read_to_string(deploy(name)).expect("our own");
        let words = text.split(|of: char| !of.is_ascii_alphanumeric() && of != '_');
        let named: Vec<&str> = words.filter(|word| word.starts_with("layerctl_")).collect();
        assert!(named.len() > 5, "{name}");
        for metric in named {
            let told = format!("# TYPE {metric} gauge");
            assert!(metrics.text().contains(&told), "{name} names {metric}");
        }
    }
    let board = fs::read_to_string(deploy("grafana.json")).expect("our own");
    let board: Value = serde_json::from_str(&board).expect("JSON");
    assert!(
        board["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 5)
    );
}

/// A server of a test, which ends with it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[String]) -> Server {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Server(child.expect("it is there"))
}

/// A port of this machine that nobody has.
fn port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// What a server of this machine answers, once it does.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

#[track_caller]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[apply(test)]
fn node_exporter_and_prometheus_have_the_metrics() {
    needs::program("prometheus-node-exporter", "--version");
    needs::program("prometheus", "--version");
    let home = tempfile::tempdir().expect("a temporary directory");
    let textfiles = home.path().join("textfiles");
    fs::create_dir(&textfiles).expect("our own");
    let file = textfiles.join("layerctl.prom");
    let host = Host::fixture("blog-host");
    host.ask(["metrics", "-o", file.to_str().expect("UTF-8")])
        .exits(0);
    let (exporter, prometheus) = (port(), port());
    let _exporter = start(
        "prometheus-node-exporter",
        &[
            format!("--web.listen-address=127.0.0.1:{exporter}"),
            "--collector.disable-defaults".into(),
            "--collector.textfile".into(),
            format!("--collector.textfile.directory={}", textfiles.display()),
        ],
    );
    let handed = wait_for("node_exporter", || get(exporter, "/metrics"));
    assert!(
        handed.contains("\nnode_textfile_scrape_error 0\n"),
        "{handed}"
    );
    let written = fs::read_to_string(&file).expect("written");
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("layerctl_"));
        lines
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect::<Vec<_>>()
    };
    let (mut ours, mut theirs) = (samples(&written), samples(&handed));
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);

    let config = home.path().join("prometheus.yml");
    let rules = deploy("alerts.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
         scrape_configs: [{{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n"
    );
    fs::write(&config, text).expect("our own");
    let _prometheus = start(
        "prometheus",
        &[
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", home.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{prometheus}"),
        ],
    );
    let answer =
        |path: &str| -> Option<Value> { serde_json::from_str(&get(prometheus, path)?).ok() };
    let value = wait_for("Prometheus", || {
        let answer = answer("/api/v1/query?query=sum(layerctl_containers)")?;
        answer["data"]["result"][0]["value"][1]
            .as_str()
            .map(str::to_owned)
    });
    let containers = host.jsonl(["containers"]).exits(0).rows().len();
    assert_eq!(value, containers.to_string());
    let healthy = wait_for("the rules", || {
        let answer = answer("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        let all = rules.iter().all(|rule| rule["health"] == "ok");
        all.then_some(rules.len())
    });
    assert_eq!(healthy, 6);
}
