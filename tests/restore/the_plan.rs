//! What a plan names.

use super::*;

fn past_a_layer() -> Union {
    let union = Union::usual();
    union
        .file("low/e/sub/f", "content")
        .file("low/e/sub/g", "g")
        .mark("mid/e/sub/.wh.f");
    union
}

#[apply(test)]
fn names_every_directory_that_will_be_made() {
    let union = past_a_layer();
    let row = union.restore(&["--dry-run"], "/e/sub/f").exits(0).row();
    let paths: Vec<Vec<u8>> = steps(&row).into_iter().map(|(_, path, _)| path).collect();
    for made in ["up/e", "up/e/sub", "up/e/sub/f"] {
        let made = union.at(made).into_os_string();
        assert!(
            paths.iter().any(|path| path == made.as_bytes()),
            "{made:?}: {row}"
        );
    }
}

#[apply(test)]
fn takes_the_directories_back_that_it_made() {
    let union = past_a_layer();
    let before = union.disk();
    let row = union.restore(&[], "/e/sub/f").exits(0).row();
    take_back(&row);
    assert_same(&settled(before), &settled(union.disk()));
}

/// Writing into a copied host needs leave, whatever the option is called.
#[apply(test)]
fn copies_nothing_out_into_a_copied_host_unasked() {
    let host = Host::empty();
    host.file("/up/.wh.f", "").file("/low/f", "f").dir("/out");
    let before = facts(&host.root);
    for out in ["/out", "/new/deep"] {
        let arguments = ["restore", "--in", "br:/up=rw:/low", "/f", "--to"];
        let arguments = arguments.iter().map(OsStr::new);
        let out = host.at(out);
        let output = host.ask(arguments.chain([out.as_os_str()]));
        // Not even the directory is made.
        assert_same(&before, &facts(&host.root));
        output.exits(2).says("--write");
    }
}

/// Whether exactly one union fits cannot be told while another cannot be read.
#[apply(test)]
fn is_not_made_while_a_union_that_might_be_meant_cannot_be_read() {
    let host = Host::empty();
    for number in ["1", "2"] {
        let (up, low) = (format!("/u{number}"), format!("/l{number}"));
        host.file(format!("{up}/.wh.f"), "")
            .file(format!("{low}/f"), "f");
        let branches = [(up.as_bytes(), "rw"), (low.as_bytes(), "ro+wh")];
        host.union(
            &format!("abc{number}"),
            &[(&format!("/mnt/{number}"), "/")],
            &branches,
        );
    }
    fs::rename(host.at("/u1"), host.at("/elsewhere")).expect("ours");
    let output = host.ask(["restore", "--write", "/f"]);
    assert!(
        host.at("/u2/.wh.f").exists(),
        "it was restored all the same"
    );
    output.exits(2);
}
