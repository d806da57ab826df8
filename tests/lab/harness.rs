//! The harness: what a test needs and does not find here leaves it out, and that is seen.
//!
//! A test is a function under `#[apply(test)]`. It says what it needs where it needs it: [`skip`] ends
//! it as ignored, with the reason; [`in_part`] lets it go on without a part of what it proves,
//! and it counts as ignored too. `LAYERCTL_TESTS` says how much is wanted:
//!
//! ```text
//! unset   what every machine can do: no daemon is started, and nothing takes long
//! all     living engines and long runs as well, as far as this machine has what they need
//! gate    all, and a test that would be ignored fails; a few that fail are run once more, alone
//! ```

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use super::run::Output;

/// A test, as `#[apply(test)]` hands it in.
pub struct Test {
    /// CRATE::MODULE::FUNCTION.
    pub name: &'static str,
    pub run: fn(),
}

inventory::collect!(Test);

/// What a test unwinds with that is left out.
struct Ignored(String);

/// The test that a thread runs.
struct Running {
    name: &'static str,
    /// What was left out of it.
    left_out: Vec<String>,
    /// The last panic, with its place.
    panicked: Option<String>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

// ---- how much is wanted ----

#[derive(PartialEq, Eq, Clone, Copy)]
enum Wanted {
    Usual,
    All,
    /// Everything, without exception.
    Gate,
}

/// What a shell starts in the background has interrupts ignored, and so has all that it starts: tests that
/// interrupt the program would wait for ever. They are started anew without that.
fn with_interrupts() {
    use std::os::unix::process::CommandExt;
    const INTERRUPT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    let again = std::env::var_os(INTERRUPTED).is_some();
    if again || ignored.is_none_or(|signals| signals & INTERRUPT == 0) {
        return;
    }
    let mut own = std::env::args_os();
    let program = own.next().unwrap_or_default();
    let mut anew = std::process::Command::new("env");
    anew.env(INTERRUPTED, "1").arg("--default-signal=INT");
    let error = anew.arg(program).args(own).exec();
    eprintln!("interrupts stay ignored: {error}");
}

/// Set where the tests were started anew.
const INTERRUPTED: &str = "LAYERCTL_TESTS_INTERRUPTED";

fn wanted() -> Wanted {
    match std::env::var("LAYERCTL_TESTS").as_deref() {
        Err(_) | Ok("") => Wanted::Usual,
        Ok("all") => Wanted::All,
        Ok("gate") => Wanted::Gate,
        Ok(other) => panic!("LAYERCTL_TESTS is all or gate, not {other}"),
    }
}

/// Whether living engines and long runs were asked for.
pub fn wants_all() -> bool {
    wanted() != Wanted::Usual
}

/// Leaves a test out that is run only when asked for: `what` it does.
pub fn needs_asking(what: &str) {
    if !wants_all() {
        skip(&format!("{what}: only with LAYERCTL_TESTS=all"));
    }
}

/// How many of `all` cases that chance makes are tried: a `part` of them, so many hundredths, unless
/// all were asked for. The test then counts as ignored in part.
#[track_caller]
pub fn of_many(all: u64, part: u64, what: &str) -> u64 {
    if wants_all() {
        return all;
    }
    let tried = all * part / 100;
    in_part_everywhere(&format!(
        "{tried} of {all} {what}: all of them only with LAYERCTL_TESTS=all"
    ));
    tried
}

// ---- leaving out ----

/// Leaves the rest of the test out, which then counts as ignored. The gate must not leave it out.
#[track_caller]
pub fn skip(why: &str) -> ! {
    assert!(
        wanted() != Wanted::Gate,
        "the gate must not leave this out: {why}"
    );
    skip_everywhere(why)
}

/// The same for what no package brings: a kernel without a file system, say. The gate's machine may
/// lack it too.
pub fn skip_everywhere(why: &str) -> ! {
    panic::resume_unwind(Box::new(Ignored(why.trim().to_owned())))
}

/// Goes on without a part of the test, which counts as ignored in the end.
#[track_caller]
pub fn in_part(why: &str) {
    assert!(
        wanted() != Wanted::Gate,
        "the gate must not leave this out: {why}"
    );
    in_part_everywhere(why);
}

/// The same for what no package brings.
#[track_caller]
pub fn in_part_everywhere(why: &str) {
    let is_noted = RUNNING.with_borrow_mut(|running| {
        let left_out = running.as_mut().map(|running| &mut running.left_out);
        left_out.map(|left_out| left_out.push(format!("in part: {}", why.trim())))
    });
    is_noted.expect("the thread that runs a test");
}

// ---- once more, elsewhere ----

/// Runs the test that calls it once more, and it alone, in the environment that `command` makes: it
/// gets this program and its arguments after its own. Whatever becomes of it there becomes of it here.
#[track_caller]
pub fn again(command: &mut Command) -> Output {
    let this = std::env::current_exe().expect("this program has a path");
    again_as(command.arg(this))
}

/// The same with a copy of this program, which `command` names already.
#[track_caller]
pub fn again_as(command: &mut Command) -> Output {
    let name = RUNNING.with_borrow(|running| running.as_ref().map(|running| running.name));
    let name = name.expect("the thread that runs a test");
    let output = super::run::run(command.args(["--exact", name, "--color", "never"]));
    let said = output.text();
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("test ")?.strip_prefix(name));
    let ignored = line.and_then(|line| line.split_once("ignored (")?.1.strip_suffix(')'));
    match ignored {
        Some(why) => skip_everywhere(why),
        None => assert!(
            output.status == Some(0) && said.contains("1 passed"),
            "{said}{}",
            output.stderr
        ),
    }
    output
}

/// Set where a test runs in namespaces of its own.
const INSIDE: &str = "LAYERCTL_TESTS_INSIDE";

/// Runs the test that calls it once more in the environment of its own that `outside` makes, and
/// `body` there.
#[track_caller]
pub fn inside(body: impl FnOnce(), outside: impl FnOnce() -> Command) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    again(outside().env(INSIDE, "1"));
}

/// Whether a part of a test goes well, or what it says if not. The test goes on.
pub fn attempt(part: impl FnOnce()) -> Result<(), String> {
    let Err(payload) = catch_unwind(AssertUnwindSafe(part)) else {
        return Ok(());
    };
    if payload.is::<Ignored>() {
        panic::resume_unwind(payload);
    }
    let noted = RUNNING.with_borrow_mut(|running| running.as_mut()?.panicked.take());
    Err(noted.unwrap_or_else(|| words(&*payload)))
}

// ---- the run ----

/// Runs every test that the arguments select, as `cargo test` does.
pub fn main() -> ExitCode {
    with_interrupts();
    let mut tests: Vec<&'static Test> = inventory::iter::<Test>.into_iter().collect();
    tests.sort_by_key(|test| test.name);
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !noted(info) {
            usual(info);
        }
    }));
    let arguments = Arguments::from_args();
    let (conclusion, failed) = run_all(&arguments, &tests);
    // One that was named is told as it is: another run of it asked.
    let is_asked = wanted() == Wanted::Gate && !arguments.exact;
    if !is_asked || failed.is_empty() || failed.len() > RUN_AGAIN_MAX {
        return conclusion.exit_code();
    }
    tests.retain(|test| failed.contains(test.name));
    eprintln!("what failed is run once more, one after the other");
    let alone = Arguments {
        filter: None,
        skip: Vec::new(),
        test_threads: Some(1),
        ..arguments
    };
    let (conclusion, still) = run_all(&alone, &tests);
    for name in failed.difference(&still) {
        eprintln!("FLAKY: {name} failed among the others, and passed alone");
    }
    conclusion.exit_code()
}

/// What a daemon does not do in time on a busy machine is no fault of the program: in the gate so many
/// failures get a second run, and both are seen. More of them are no accident.
const RUN_AGAIN_MAX: usize = 5;

/// Runs those that the arguments select, and tells the names of those that failed.
fn run_all(arguments: &Arguments, tests: &[&'static Test]) -> (Conclusion, BTreeSet<&'static str>) {
    let reasons = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let failed = Arc::new(Mutex::new(BTreeSet::new()));
    let trials = tests.iter().copied().map(|test| {
        let (_, name) = test.name.split_once("::").expect("a crate's name");
        let (reasons, failed) = (Arc::clone(&reasons), Arc::clone(&failed));
        Trial::ignorable_test(name, move || {
            let outcome = run(name, test.run);
            match &outcome {
                Ok(Completion::Ignored { reason: Some(why) }) => {
                    let mut reasons = reasons.lock().expect("no thread panicked");
                    *reasons.entry(why.clone()).or_default() += 1;
                }
                Ok(_) => {}
                Err(_) => {
                    failed.lock().expect("no thread panicked").insert(test.name);
                }
            }
            outcome
        })
    });
    let conclusion = libtest_mimic::run(arguments, trials.collect());
    for (why, count) in reasons.lock().expect("no thread panicked").iter() {
        eprintln!("left out of {count} tests: {why}");
    }
    let failed = std::mem::take(&mut *failed.lock().expect("no thread panicked"));
    (conclusion, failed)
}

fn run(name: &'static str, test: fn()) -> Result<Completion, Failed> {
    RUNNING.set(Some(Running {
        name,
        left_out: Vec::new(),
        panicked: None,
    }));
    let ended = catch_unwind(AssertUnwindSafe(test));
    let running = RUNNING.take().expect("it was set");
    let mut left_out = running.left_out;
    if let Err(payload) = ended {
        let Ignored(why) = *payload.downcast::<Ignored>().map_err(|payload| {
            Failed::from(running.panicked.unwrap_or_else(|| words(&*payload)))
        })?;
        left_out.push(why);
    }
    left_out.dedup();
    Ok(match left_out.as_slice() {
        [] => Completion::Completed,
        reasons => Completion::ignored_with(reasons.join("; ").replace('\n', " ")),
    })
}

/// What a panic says.
fn words(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// Keeps a panic for the list of failures, if this thread runs a test.
fn noted(info: &PanicHookInfo<'_>) -> bool {
    RUNNING.with_borrow_mut(|running| {
        let Some(running) = running else { return false };
        let place = info.location().map_or(String::new(), ToString::to_string);
        let mut text = format!("{place}:\n{}", words(info.payload()));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{trace}"));
        }
        running.panicked = Some(text);
        true
    })
}
