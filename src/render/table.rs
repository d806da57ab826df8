//! Reports for people. Column heads and truncation are docker's; every name is escaped.

use std::io::{self, Write};

use comfy_table::{Cell, Color};

use super::columns::{Columns, path, text};
use super::{Look, time};
use crate::bytes::{Bytes, escape};
use crate::command::{
    Report, Version, branches, check, containers, copyups, du, history, images, info, orphans,
    restore, which, whois,
};
use crate::dir::Kind;
use crate::engine::{MountState, Role};
use crate::union::Says;
use crate::whiteout::MarkKind;

const NO_UNION: Bytes = Bytes(Vec::new());

pub fn render(report: &Report, look: Look, out: &mut impl Write) -> io::Result<()> {
    match report {
        Report::Ls(_) | Report::Whiteouts(_) | Report::Changes(_) => Ok(()),
        Report::Branches(rows) => branches(rows, look, out),
        Report::Which(rows) => which(rows, look, out),
        Report::Copyups(rows) => copyups(rows, look, out),
        Report::History(rows) => history(rows, look, out),
        Report::Containers(rows) => containers(rows, look, out),
        Report::Images(rows) => images(rows, look, out),
        Report::Check(found) => check(found, look, out),
        Report::Info(row) => info(row, look, out),
        Report::Restore(row) => restore(row, look, out),
        Report::Whois(rows) => whois(rows, look, out),
        Report::Orphans(rows) => orphans(rows, look, out),
        Report::Du(rows) => du(rows, look, out),
    }
}

/// What a thing is, in one line.
fn whose(row: &whois::Row, look: Look) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(row.engine.map(str::to_owned));
    words.push(row.kind.words().to_owned());
    if let [image, ..] = row.images.as_slice()
        && row.kind == whois::Kind::Image
    {
        words.push(format!("{} of {}", image.number, image.of));
    }
    let containers = row
        .containers
        .iter()
        .map(|of| escape(of.name.as_bytes()).into_owned());
    let mut names: Vec<String> = containers.collect();
    let mut tags: Vec<String> = row
        .images
        .iter()
        .flat_map(|image| &image.tags)
        .map(|tag| escape(tag.as_bytes()).into_owned())
        .collect();
    tags.dedup();
    if tags.is_empty() {
        tags.extend(row.images.first().map(|image| look.id(&image.id)));
    }
    names.extend(tags);
    if !names.is_empty() {
        words.push(format!("of {}", names.join(", ")));
    }
    if let Some(why) = &row.why {
        words.push(format!("({})", escape(why.as_bytes())));
    }
    words.join(" ")
}

fn whois(rows: &[whois::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    for row in rows {
        // A line of another program's is given back with what was asked for behind it.
        if let Some(line) = &row.line {
            // Its tabs are its columns.
            for part in line.as_bytes().split(|&byte| byte == b'\t') {
                write!(out, "{}\t", escape(part))?;
            }
            writeln!(out, "{}", whose(row, look))?;
            continue;
        }
        writeln!(
            out,
            "{}  {}",
            look.bold(&escape(row.query.as_bytes())),
            whose(row, look)
        )?;
        if let Some(directory) = &row.directory {
            writeln!(out, "  in {}", look.directory(directory))?;
        }
        if !row.above.is_empty() {
            let names = row.above.iter().map(|of| escape(of.name.as_bytes()));
            let names: Vec<_> = names.collect();
            writeln!(out, "  below {}", names.join(", "))?;
        }
        for inside in &row.inside {
            writeln!(
                out,
                "  {}:{}  {}",
                escape(inside.of.as_bytes()),
                inside.path,
                inside.state.word()
            )?;
        }
    }
    Ok(())
}

fn orphans(rows: &[orphans::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "nothing found");
    }
    let mut columns = Columns::new(&["ENGINE", "KIND", "SIZE", "CHANGED", "WHY", "PATH"], look);
    for row in rows {
        let kind = serde_json::to_value(row.kind).ok();
        let kind = kind
            .as_ref()
            .and_then(|kind| kind.as_str())
            .unwrap_or_default();
        columns.row([
            text(row.engine),
            text(kind),
            text(row.size.map(|size| look.size(size)).unwrap_or_default()),
            text(row.modified.as_deref().map(time::ago).unwrap_or_default()),
            text(&row.why),
            path(&row.path),
        ]);
    }
    columns.write(out)
}

fn du(rows: &[du::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    let mut columns = Columns::new(&["ENGINE", "SIZE", "SHARED", "WHAT", "ID", "NAME"], look);
    for row in rows {
        columns.row([
            text(row.engine),
            text(look.size(row.size)),
            text(row.shared.map(|size| look.size(size)).unwrap_or_default()),
            text(row.kind.word()),
            text(row.id.as_deref().map(|id| look.id(id)).unwrap_or_default()),
            text(row.name.as_deref().unwrap_or_default()),
        ]);
        // Whoever wants all asks for a machine format.
        for large in row.largest.iter().filter(|large| large.size > 0).take(3) {
            columns.row([
                text(""),
                text(look.size(large.size)),
                text(""),
                text(""),
                text(""),
                path(&large.path),
            ]);
        }
    }
    columns.write(out)
}

fn branches(rows: &[branches::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    for (index, union) in rows.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let mut title = look.bold(&escape(union.union.as_bytes()));
        if let Some(owner) = &union.owner
            && owner.name.is_some()
        {
            title.push_str(&format!("  {}", look.id(&owner.id)));
        }
        if let Some(si) = &union.si {
            title.push_str(&format!("  {si}"));
        }
        title.push_str(match union.state {
            MountState::Mounted => "",
            MountState::Elsewhere => "  mounted in another mount namespace",
            MountState::NotMounted => "  not mounted",
        });
        writeln!(out, "{title}")?;
        for mount in &union.mounts {
            let partial = union.partial.iter().find(|partial| partial.mount == *mount);
            if *mount == union.union && partial.is_none() {
                continue;
            }
            write!(out, "at {}", look.directory(mount))?;
            if let Some(partial) = partial {
                if partial.root.as_bytes() != b"/" {
                    write!(out, ", only {}", partial.root)?;
                }
                if let Some(process) = partial.process {
                    write!(out, ", in the mount namespace of process {process}")?;
                }
            }
            writeln!(out)?;
        }
        let has_layers = union.branches.iter().any(|branch| branch.layer.is_some());
        let has_modules = union.branches.iter().any(|branch| branch.module.is_some());
        let mut head = vec!["#", "PERM", "LAYER"];
        head.extend(has_layers.then_some("ID"));
        head.push("DIRECTORY");
        head.extend(has_modules.then_some("MODULE"));
        head.extend(look.verbose.then_some("INSTRUCTION"));
        let mut columns = Columns::new(&head, look);
        for branch in &union.branches {
            let mut cells = vec![
                Cell::new(branch.index),
                text(&branch.permission),
                text(role_words(&branch.role)),
            ];
            if has_layers {
                cells.push(text(
                    branch
                        .layer
                        .as_deref()
                        .map(|id| look.id(id))
                        .unwrap_or_default(),
                ));
            }
            cells.push(Cell::new(look.directory(&branch.directory)));
            if has_modules {
                cells.push(Cell::new(
                    branch
                        .module
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                ));
            }
            if look.verbose {
                cells.push(Cell::new(
                    look.clip(branch.instruction.as_deref().unwrap_or_default(), 45),
                ));
            }
            columns.row(cells);
        }
        columns.write(out)?;
    }
    Ok(())
}

fn which(rows: &[which::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if let Some(union) = &row.union {
            write!(out, "{}:", escape(union.as_bytes()))?;
        }
        for link in &row.links {
            write!(out, "{} -> {}\n  ", link.path, link.target)?;
        }
        let note = |branch: usize| row.branches.get(branch);
        let what = |branch: usize| match note(branch) {
            Some(note) if note.role != Role::Plain => format!("branch {branch}, {}", note.role),
            Some(note) => format!("branch {branch}, {}", look.directory(&note.directory)),
            None => format!("branch {branch}"),
        };
        let (verdict, reason) = match (row.state, row.branch, &row.hidden_by) {
            (which::State::Present, Some(branch), _) => {
                let kind = row.kind.map(Kind::word).unwrap_or_default();
                (format!("{kind} from {}", what(branch)), None)
            }
            (which::State::Deleted, _, Some(cut)) => {
                let verdict = if row.versions.is_empty() {
                    "deleted, and nothing is left below"
                } else {
                    "deleted"
                };
                let kind = match cut.kind {
                    MarkKind::Whiteout => "whiteout",
                    MarkKind::Opaque => "opaque mark",
                };
                let reason = format!("by the {kind} {} of {}", cut.mark, what(cut.branch));
                (verdict.to_owned(), Some(reason))
            }
            (which::State::Missing, _, _) => {
                let why = row.why.clone().unwrap_or_else(|| "no branch has it".into());
                (format!("not there: {why}"), None)
            }
            _ => {
                let why = row.why.clone().unwrap_or_default();
                (
                    format!("broken ({}): {why}", row.error.unwrap_or("EIO")),
                    None,
                )
            }
        };
        writeln!(out, "{}  {verdict}", look.bold(&row.path.to_string()))?;
        if let Some(reason) = reason {
            writeln!(out, "  {reason}")?;
        }
        if row.uncertain {
            writeln!(
                out,
                "  but a branch was not read that may say something else"
            )?;
        }
        if let Some(instruction) = &row.instruction {
            writeln!(out, "  made by {}", look.clip(instruction, 70))?;
        }
        let shown: Vec<&which::Verdict> = row
            .trail
            .iter()
            .filter(|verdict| look.verbose || verdict.says != Says::Nothing)
            .collect();
        if shown.is_empty() {
            continue;
        }
        let mut columns = Columns::new(&["#", "SAYS", "LAYER", "TYPE", "SIZE", "DIRECTORY"], look);
        for verdict in shown {
            let version = row
                .versions
                .iter()
                .find(|version| version.branch == verdict.branch);
            let note = note(verdict.branch);
            let says = text(says_words(verdict.says));
            columns.row([
                Cell::new(verdict.branch),
                match verdict.says {
                    Says::Provides | Says::ProvidesOpaque => says.fg(Color::Green),
                    Says::Whiteout | Says::Invalid | Says::Unread => says.fg(Color::Red),
                    _ => says,
                },
                text(
                    note.map(|note| role_words(&note.role.to_string()))
                        .unwrap_or_default(),
                ),
                text(
                    version
                        .map(|version| version.kind.word())
                        .unwrap_or_default(),
                ),
                text(
                    version
                        .map(|version| sized(version, look))
                        .unwrap_or_default(),
                ),
                Cell::new(
                    note.map(|note| look.directory(&note.directory))
                        .unwrap_or_default(),
                ),
            ]);
        }
        columns.write(out)?;
    }
    Ok(())
}

/// `13 of 14` for an image's layer, which a column has room for.
fn role_words(role: &str) -> String {
    match role.strip_prefix("image ") {
        Some(number) => number.replace('/', " of "),
        None => role.to_owned(),
    }
}

fn says_words(says: Says) -> &'static str {
    match says {
        Says::ProvidesData => "provides the content",
        Says::Provides => "provides",
        Says::ProvidesOpaque => "provides, opaque",
        Says::Merges => "merges",
        Says::MergesOpaque => "merges, opaque",
        Says::Whiteout => "whiteout",
        Says::Invalid => "bad mark",
        Says::Skipped => "skipped",
        Says::Shadowed => "shadowed",
        Says::Hidden => "hidden",
        Says::Nothing => "-",
        Says::Unread => "not read",
    }
}

/// A file's size; a directory's own size tells nothing.
pub fn sized(version: &Version, look: Look) -> String {
    match version.kind {
        Kind::File => look.size(version.size),
        _ => String::new(),
    }
}

/// A layer's short id, or the branch's number where no engine has given it one.
pub fn layer_words(version: &Version, look: Look) -> String {
    match &version.layer {
        Some(id) => look.id(id),
        None => format!("branch {}", version.branch),
    }
}

fn copyups(rows: &[copyups::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    let has_unions = rows.iter().any(|row| row.union.is_some());
    let mut head = Vec::new();
    head.extend(has_unions.then_some("UNION"));
    head.extend(["TYPE", "FROM", "DIFFERS", "COST", "PATH"]);
    let mut columns = Columns::new(&head, look);
    for row in rows {
        let mut cells = Vec::new();
        if has_unions {
            cells.push(path(row.union.as_ref().unwrap_or(&NO_UNION)));
        }
        let differs: Vec<&str> = row.differs.iter().map(|what| what.word()).collect();
        let differs = if differs.is_empty() {
            "nothing".to_owned()
        } else {
            differs.join(",")
        };
        cells.extend([
            text(row.kind.word()),
            text(layer_words(&row.from, look)),
            text(differs),
            text(look.size(row.cost)),
            path(&row.path),
        ]);
        columns.row(cells);
    }
    columns.write(out)
}

fn history(rows: &[history::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    let mut head = vec!["IMAGE", "CREATED", "CREATED BY", "SIZE", "LAYER"];
    if look.verbose {
        head.extend(["DIFF ID", "DIRECTORY"]);
    }
    head.push("COMMENT");
    let mut columns = Columns::new(&head, look);
    for row in rows {
        let mut cells = vec![
            text(
                row.image
                    .as_deref()
                    .map_or("<missing>".to_owned(), |id| look.id(id)),
            ),
            text(if row.created.is_empty() {
                String::new()
            } else {
                time::ago(&row.created)
            }),
            Cell::new(look.clip(&row.instruction, 45)),
            text(row.size.map(|size| look.size(size)).unwrap_or_default()),
            text(match (&row.cache_id, row.empty) {
                (Some(id), _) => look.id(id),
                (None, true) => "(empty)".to_owned(),
                (None, false) => "(not here)".to_owned(),
            }),
        ];
        if look.verbose {
            cells.push(text(
                row.diff_id
                    .as_deref()
                    .map(|id| look.id(id))
                    .unwrap_or_default(),
            ));
            cells.push(Cell::new(
                row.directory
                    .as_ref()
                    .map(|dir| look.directory(dir))
                    .unwrap_or_default(),
            ));
        }
        cells.push(text(&row.comment));
        columns.row(cells);
    }
    columns.write(out)
}

fn containers(rows: &[containers::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    let mut head = vec![
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "DRIVER",
        "NAMES",
    ];
    // Docker alone needs no name; what is not docker's is told apart.
    let has_engines = rows.iter().any(|row| row.engine != "docker");
    let has_namespaces = rows.iter().any(|row| row.namespace.is_some());
    if has_engines {
        head.insert(0, "ENGINE");
    }
    if has_namespaces {
        head.insert(1, "NAMESPACE");
    }
    let mut columns = Columns::new(&head, look);
    for row in rows {
        let mut cells = Vec::new();
        if has_engines {
            cells.push(text(row.engine));
        }
        if has_namespaces {
            cells.push(text(row.namespace.as_deref().unwrap_or_default()));
        }
        cells.extend([
            text(look.id(&row.id)),
            text(&row.image),
            Cell::new(format!("\"{}\"", look.clip(&row.command, 20))),
            text(time::ago(&row.created)),
            text(status(row)),
            text(&row.ports),
            text(&row.driver),
            text(&row.name),
        ]);
        columns.row(cells);
    }
    columns.write(out)
}

/// As `docker ps` words it, and what the mount table says against it.
fn status(row: &containers::Row) -> String {
    let state = &row.full_state;
    let since = |time: &Option<String>| time.as_deref().and_then(time::since).unwrap_or_default();
    let words = match row.state {
        "running" => format!("Up {}", since(&row.started)),
        "paused" => format!("Up {} (Paused)", since(&row.started)),
        "restarting" => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(&row.finished)
        ),
        "removing" => "Removal In Progress".into(),
        "dead" => "Dead".into(),
        "created" => "Created".into(),
        _ if row.finished.is_some() => {
            format!("Exited ({}) {} ago", state.exit_code, since(&row.finished))
        }
        _ => format!("Exited ({})", state.exit_code),
    };
    let is_up = matches!(row.state, "running" | "paused");
    match (is_up, row.mounted) {
        (true, Some(false)) => format!("{words}, not mounted"),
        (false, Some(true)) => format!("{words}, still mounted"),
        _ => words,
    }
}

fn images(rows: &[images::Row], look: Look, out: &mut impl Write) -> io::Result<()> {
    let mut columns = Columns::new(
        &[
            "REPOSITORY",
            "TAG",
            "IMAGE ID",
            "CREATED",
            "SIZE",
            "LAYERS",
            "DRIVER",
        ],
        look,
    );
    for row in rows {
        let none = vec!["<none>:<none>".to_owned()];
        for tag in if row.tags.is_empty() {
            &none
        } else {
            &row.tags
        } {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            columns.row([
                text(name),
                text(tag),
                text(look.id(&row.id)),
                text(time::ago(&row.created)),
                text(look.size(row.size)),
                Cell::new(row.layers),
                text(&row.driver),
            ]);
        }
    }
    columns.write(out)
}

fn check(found: &check::Findings, look: Look, out: &mut impl Write) -> io::Result<()> {
    let rows = &found.rows;
    match (rows.is_empty(), found.is_whole) {
        (true, true) => return writeln!(out, "nothing found"),
        (true, false) => return writeln!(out, "nothing found in what could be read"),
        (false, _) => {}
    }
    let has_unions = rows.iter().any(|row| row.union.is_some());
    let mut head = Vec::new();
    head.extend(has_unions.then_some("UNION"));
    head.extend(["FINDING", "BRANCH", "PATH", "MEANS"]);
    let mut columns = Columns::new(&head, look);
    for row in rows {
        let mut cells = Vec::new();
        if has_unions {
            cells.push(path(row.union.as_ref().unwrap_or(&NO_UNION)));
        }
        cells.extend([
            text(row.finding.word()),
            Cell::new(row.branch),
            path(&row.path),
            text(&row.means),
        ]);
        columns.row(cells);
    }
    columns.write(out)
}

fn info(row: &info::Row, look: Look, out: &mut impl Write) -> io::Result<()> {
    for engine in &row.engines {
        writeln!(out, "{}", look.bold(&format!("Engine: {}", engine.engine)))?;
        writeln!(out, " Containers: {}", engine.containers)?;
        writeln!(out, "  Running: {}", engine.running)?;
        writeln!(out, "  Paused: {}", engine.paused)?;
        writeln!(out, "  Stopped: {}", engine.stopped)?;
        writeln!(out, " Images: {}", engine.images)?;
        writeln!(
            out,
            " Storage Driver: {}",
            escape(engine.storage_driver.as_bytes())
        )?;
        writeln!(out, "  Root Dir: {}", engine.root_dir)?;
        let unknown = "unknown".to_owned();
        writeln!(
            out,
            "  Backing Filesystem: {}",
            escape(
                engine
                    .backing_filesystem
                    .as_ref()
                    .unwrap_or(&unknown)
                    .as_bytes()
            )
        )?;
        writeln!(out, "  Dirs: {}", engine.dirs)?;
        let dirperm1 = engine
            .dirperm1_supported
            .map_or(unknown, |yes| yes.to_string());
        writeln!(out, "  Dirperm1 Supported: {dirperm1}")?;
    }
    if row.engines.is_empty() {
        writeln!(out, "No engine found")?;
    }
    writeln!(out, "Unions mounted: {}", row.unions_mounted)?;
    if row.unions_elsewhere > 0 {
        writeln!(out, " In other mount namespaces: {}", row.unions_elsewhere)?;
    }
    if !row.problems.is_empty() {
        writeln!(out, "Not read:")?;
        for problem in &row.problems {
            writeln!(out, " {problem}")?;
        }
    }
    Ok(())
}

fn restore(row: &restore::Row, look: Look, out: &mut impl Write) -> io::Result<()> {
    let path = look.bold(&format!("{}:{}", escape(row.union.as_bytes()), row.path));
    if let Some(nothing) = &row.nothing {
        return writeln!(out, "{path}  nothing to restore: {nothing}");
    }
    let strategy = row.strategy.unwrap_or_default();
    let head = if row.applied { "restored" } else { "plan" };
    writeln!(out, "{path}  {head} ({strategy})")?;
    for step in &row.steps {
        writeln!(out, "  {}", step.words)?;
    }
    for also in row.reappears.iter().take(20) {
        writeln!(out, "  also reappears: {also}")?;
    }
    if row.reappears.len() > 20 {
        writeln!(out, "  also reappear: {} more", row.reappears.len() - 20)?;
    }
    if let Some(seen) = &row.seen {
        writeln!(out, "seen: {seen}")?;
    }
    match row.undo.as_slice() {
        [] => writeln!(out, "this cannot be taken back"),
        commands => writeln!(out, "to take it back: {}", commands.join(" && ")),
    }
}
