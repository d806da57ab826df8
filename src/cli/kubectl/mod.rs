//! layerctl as a plugin of kubectl: called `kubectl-layers`, it is asked by `kubectl layers POD VERB`.
//! It finds a container's node and id with kubectl, has a pod started there from layerctl's image, with
//! the node's root mounted read-only, asks in it, and takes it away. kubectl is run as a program, each
//! argument by itself; what the API server says is checked before it becomes part of one.

mod pod;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;

use crate::bytes::{Bytes, escape_text, shell_quote};
use crate::command;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use pod::{Container, OURS};

/// What has to be there to be run.
const KUBECTL: &str = "kubectl";
/// Where the node's root is in the pod.
const HOST: &str = "/host";
/// How kubectl says how a program in a pod ended.
const ENDED: &str = "command terminated with exit code ";

/// Look into the layers of a pod's container, on its node
///
/// A pod of layerctl's image is started there with the node's root mounted read-only, asked, and taken
/// away. VERB is layerctl's; the container is put in as its TARGET: `kubectl layers web-0 which /etc/passwd`,
/// `kubectl layers web-0 -c app changes`. Verbs without a TARGET (containers, du, orphans) are about the node.
/// Exit status: the verb's; 2 if it could not be asked.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl layers",
    bin_name = "kubectl layers",
    version = env!("LAYERCTL_VERSION")
)]
struct Typed {
    /// The container of the pod [default: the pod's default one, or its first]
    #[arg(short, long)]
    container: Option<String>,
    /// The pod's namespace, in which layerctl's is started
    #[arg(short, long)]
    namespace: Option<String>,
    /// The image of layerctl that the node can pull or has
    #[arg(long, env = "LAYERCTL_IMAGE")]
    image: String,
    /// Only find the container, and print the commands that would be run
    #[arg(long)]
    dry_run: bool,
    /// Start the pod privileged instead of with three capabilities, where the node demands it
    #[arg(long)]
    privileged: bool,
    /// How long to wait for the pod to run
    #[arg(long, value_name = "DURATION", default_value = "1min", value_parser = command::period)]
    pod_running_timeout: Duration,
    /// The context of the kubeconfig
    #[arg(long)]
    context: Option<String>,
    /// The kubeconfig
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The pod: NAME or pod/NAME
    pod: String,
    /// layerctl's verb and its arguments
    #[arg(
        value_name = "VERB",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<OsString>,
}

/// Does what is asked, with words as kubectl gives them.
pub fn run(words: Vec<OsString>, out: &mut dyn Write) -> ExitCode {
    let typed = match Typed::try_parse_from(words) {
        Ok(typed) => typed,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 }.into();
        }
    };
    match typed.answer(out) {
        Ok(status) => status.into(),
        Err(error) => {
            let mut err = io::stderr().lock();
            let _ = writeln!(err, "layerctl: {error}");
            if let Some(hint) = error.hint() {
                let _ = writeln!(err, "  {hint}");
            }
            2.into()
        }
    }
}

/// A command that is run, or shown.
struct Run {
    words: Vec<OsString>,
    /// What is handed to it.
    input: Option<String>,
}

impl Typed {
    fn answer(&self, out: &mut dyn Write) -> Result<u8> {
        let find = self.find()?;
        let found = find.output()?;
        let container = Container::find(&found, self.container.as_deref())?;
        let arguments = words::about(&self.words, &container.id)?;
        let name = pod::name();
        let steps = self.steps(&container, &name, arguments)?;
        if self.dry_run {
            let shown = steps.iter().try_for_each(|step| step.show(out));
            let shown = shown.and_then(|()| out.flush());
            return shown.map(|()| 0).map_err(|error| wrong(error.to_string()));
        }
        container.said.iter().for_each(|said| say(said));
        let [create, wait, ask, delete] = steps;
        // Whatever comes now, the pod is taken away.
        let interrupt = Interrupt::catch_all();
        create.output()?;
        let asked = if interrupt.is_pressed() {
            Err(wrong("was told to end"))
        } else {
            wait.output()
                .map_err(|error| self.not_ready(&name, &container, error))
                .and_then(|_| ask.ask())
        };
        let deleted = delete.output().map_err(|error| {
            let remove = delete.shell_words();
            Error::Refused {
                what: error.to_string(),
                hint: format!("the pod is still there: {remove}"),
            }
        });
        let status = asked?;
        deleted.map(|_| status)
    }

    /// kubectl with what says which cluster is meant.
    fn kubectl(&self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Run {
        let mut all: Vec<OsString> = vec![KUBECTL.into()];
        if let Some(kubeconfig) = &self.kubeconfig {
            all.push(option("--kubeconfig", kubeconfig.as_os_str()));
        }
        if let Some(context) = &self.context {
            all.push(option("--context", OsStr::new(context)));
        }
        all.extend(words.into_iter().map(Into::into));
        Run {
            words: all,
            input: None,
        }
    }

    /// How the pod is found that is meant.
    fn find(&self) -> Result<Run> {
        let name = self.pod.strip_prefix("pod/");
        let name = name.or_else(|| self.pod.strip_prefix("pods/"));
        let name = name.unwrap_or(&self.pod);
        if !pod::is_name(name) {
            return Err(wrong(format!("{}: is no name of a pod", self.pod)));
        }
        let mut words: Vec<OsString> = vec!["get".into(), "pod".into(), "--output=json".into()];
        if let Some(namespace) = &self.namespace {
            words.push(option("--namespace", OsStr::new(namespace)));
        }
        words.extend(["--".into(), name.into()]);
        Ok(self.kubectl(words))
    }

    /// Start a pod, wait for it, ask in it, and take it away.
    fn steps(
        &self,
        container: &Container,
        name: &str,
        arguments: Vec<OsString>,
    ) -> Result<[Run; 4]> {
        let namespace = option("--namespace", OsStr::new(&container.namespace));
        let of = |words: &[&str]| {
            let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
            all.insert(1, namespace.clone());
            all
        };
        let manifest = pod::manifest(name, container, &self.image, self.privileged);
        let manifest = serde_json::to_string_pretty(&manifest);
        let mut create = self.kubectl(of(&["create", "--validate=false", "--filename=-"]));
        create.input = Some(manifest.map_err(|error| wrong(error.to_string()))?);
        let patience = format!("--timeout={}s", self.pod_running_timeout.as_secs());
        let wait = of(&[
            "wait",
            "--for=condition=Ready",
            &patience,
            "--",
            "pod",
            name,
        ]);
        let mut ask = of(&["exec", &format!("--container={OURS}")]);
        if self.words.iter().any(|word| word == "-") {
            ask.push("--stdin".into());
        }
        ask.extend([name, "--", "/layerctl", "--root", HOST].map(OsString::from));
        ask.extend(arguments);
        let delete = of(&["delete", "--now", "--wait=false", "--", "pod", name]);
        Ok([
            create,
            self.kubectl(wait),
            self.kubectl(ask),
            self.kubectl(delete),
        ])
    }

    /// Why a pod does not run, as far as its status tells.
    fn not_ready(&self, name: &str, container: &Container, error: Error) -> Error {
        let namespace = option("--namespace", OsStr::new(&container.namespace));
        let status = self.kubectl([
            OsString::from("get"),
            namespace,
            "--output=json".into(),
            "--".into(),
            "pod".into(),
            name.into(),
        ]);
        let why = status.output().ok().and_then(|pod| pod::waits_for(&pod));
        Error::Refused {
            what: format!("the pod {name} does not run on {}: {error}", container.node),
            hint: why.unwrap_or_else(|| "kubectl get events tells more".into()),
        }
    }
}

impl Run {
    fn command(&self) -> Command {
        let (program, arguments) = self.words.split_at(1);
        let mut command = Command::new(&program[0]);
        command.args(arguments);
        command
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => wrong(format!("{KUBECTL} is not installed")),
            _ => wrong(format!("{KUBECTL}: {error}")),
        })
    }

    /// Runs it, and gives what it printed. What it says else is said.
    ///
    /// # Errors
    /// It failed.
    fn output(&self) -> Result<Vec<u8>> {
        let mut command = self.command();
        command.stdin(match self.input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        });
        let mut child = self.start(command.stdout(Stdio::piped()))?;
        if let (Some(mut to), Some(input)) = (child.stdin.take(), &self.input) {
            // It says itself why it reads no further.
            let _ = to.write_all(input.as_bytes());
        }
        let output = child.wait_with_output();
        let output = output.map_err(|error| wrong(format!("{KUBECTL}: {error}")))?;
        if !output.status.success() {
            let what = self.words.iter().skip(1);
            let mut what = what.filter(|word| !word.as_encoded_bytes().starts_with(b"--"));
            let what = what.next().map(|word| word.to_string_lossy());
            let what = what.unwrap_or_default();
            return Err(wrong(format!(
                "{KUBECTL} {what} failed ({})",
                output.status
            )));
        }
        Ok(output.stdout)
    }

    /// Runs what answers, and gives the status that the answer has in the pod.
    ///
    /// # Errors
    /// kubectl could not ask.
    fn ask(&self) -> Result<u8> {
        let mut command = self.command();
        let mut child = self.start(command.stderr(Stdio::piped()))?;
        let mut told = None;
        if let Some(said) = child.stderr.take() {
            let mut said = BufReader::new(said);
            let mut line = Vec::new();
            while said.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line);
                told = text
                    .trim_end()
                    .strip_prefix(ENDED)
                    .and_then(|status| status.parse().ok());
                if told.is_none() {
                    let _ = io::stderr().write_all(&line);
                }
                line.clear();
            }
        }
        let status = child.wait();
        let status = status.map_err(|error| wrong(format!("{KUBECTL}: {error}")))?;
        match told {
            _ if status.success() => Ok(0),
            // kubectl's own failures have status 1, which would be a "no".
            Some(told) => Ok(told),
            None => Err(wrong(format!("{KUBECTL} exec failed ({status})"))),
        }
    }

    /// As a shell would be given it.
    fn shell_words(&self) -> String {
        let words = self.words.iter();
        let words = words.map(|word| shell_quote(&Bytes::from(Path::new(word))));
        words.collect::<Vec<_>>().join(" ")
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.input {
            None => writeln!(out, "{}", self.shell_words()),
            // No line of JSON is a word without quotes.
            Some(input) => writeln!(out, "{} <<'EOF'\n{input}\nEOF", self.shell_words()),
        }
    }
}

/// An option with its value in one argument, so that a value is never an option.
fn option(name: &str, value: &OsStr) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(value);
    option
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Usage(what.into())
}

fn say(what: &str) {
    let _ = writeln!(io::stderr(), "layerctl: {}", escape_text(what));
}
