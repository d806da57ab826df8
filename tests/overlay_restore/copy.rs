//! Versions that are copied into the writable branch.

use super::*;

const COPY: [&str; 2] = ["--strategy", "copy"];

#[apply(test)]
fn takes_the_place_of_a_mark_of_either_kind() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            treasure(&lab, "low/d");
            let all = names(&lab.at("low/d"));
            let leaves: Vec<&String> = all.iter().filter(|name| *name != "sub").collect();
            for (index, name) in leaves.iter().enumerate() {
                let mark = format!("up/d/{name}");
                match index % 2 {
                    0 => lab.device(&mark),
                    _ => lab.attribute(&mark, b""),
                };
            }
            lab.attribute("up/d/x", b"");
            let before = lab.state();
            assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/sub", "/d/sub/two"]);
            let mut done = Vec::new();
            for name in &leaves {
                done.push(lab.brings_back(&COPY, &format!("/d/{name}")));
            }
            let new = lab.agrees(&[]);
            for name in leaves {
                let path = format!("/d/{name}").into_bytes();
                let lower = fact(&lab.at(format!("low/d/{name}")), Detail::Copied);
                assert_eq!(new.get(&path), Some(&lower), "{name}");
            }
            done.iter().for_each(take_back);
            assert_same(&before, &lab.state());
        }
    });
}

#[apply(test)]
fn of_a_directory_is_opaque_and_keeps_everything() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            treasure(&lab, "low/d");
            lab.file("mid/d/more", "merged")
                .device("mid/d/gone")
                .file("low/d/gone", "");
            lab.mode("mid/d", 0o711).time("mid/d", 1_000_000_000);
            let merged = lab.agrees(&[]);
            lab.device("up/d");
            lab.refuses_and_changes_nothing(&lab.target(), &COPY, "/d")
                .says("-r");
            let row = lab.brings_back(&[&COPY[..], &["-r"]].concat(), "/d");
            assert_eq!(
                actions(&row),
                ["copy", "make-opaque", "remove-mark", "look"]
            );
            assert_eq!(
                attribute(&lab.at("up/d"), &lab.own("opaque")),
                Some(b"y".to_vec())
            );
            is_the_treasure(&lab.at("up/d"));
            let new = lab.agrees(&["/d/gone"]);
            assert_same(&merged, &new);
            // Nothing shines through, whatever becomes of the copy.
            fs::remove_file(lab.at("up/d/more")).expect("it was copied");
            assert!(!lab.agrees(&[]).contains_key(&b"/d/more"[..]));
            take_back(&row);
            lab.agrees(&["/d"]);
            assert_eq!(names(&lab.at("up")), ["d"]);
        }
    });
}

#[apply(test)]
fn of_a_directory_over_a_mark_by_attribute() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/a/d/x", "x").attribute("up/a/d", b"");
        let (_, new) = there_and_back(&lab, &[&COPY[..], &["-r"]].concat(), "/a/d");
        assert_eq!(paths(&new), ["/a", "/a/d", "/a/d/x"]);
    });
}

#[apply(test)]
fn out_of_a_deleted_ancestor_brings_only_what_was_asked_for() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("low/d/e/x", "asked")
                .file("low/d/e/y", "")
                .file("mid/d/z", "");
            lab.mode("low/d/e", 0o701)
                .owner("low/d/e", 7, 8)
                .time("low/d/e", 1_000_000_000);
            lab.mode("mid/d", 0o710)
                .xattr("mid/d", "user.note", b"kept")
                .device("up/d");
            let (row, new) = there_and_back(&lab, &[], "/d/e/x");
            assert_eq!(row["strategy"], "copy");
            assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/x"]);
            assert_eq!(new[&b"/d/e"[..]], fact(&lab.at("low/d/e"), Detail::Copied));
            assert_eq!(new[&b"/d"[..]], fact(&lab.at("mid/d"), Detail::Copied));
        }
    });
}

#[apply(test)]
fn into_an_opaque_directory() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("mid/d/x", "asked")
                .file("mid/d/y", "")
                .file("low/d/e/z", "deep");
            lab.opaque("up/d").file("up/d/new", "");
            let (row, new) = there_and_back(&lab, &[], "/d/x");
            assert_eq!(
                (&row["strategy"], &row["hidden_by"]["kind"]),
                (&"copy".into(), &"opaque".into())
            );
            assert_eq!(paths(&new), ["/d", "/d/new", "/d/x"]);
            let (_, new) = there_and_back(&lab, &[], "/d/e/z");
            assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/z", "/d/new"]);
            let (_, new) = there_and_back(&lab, &["-r"], "/d/e");
            assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/z", "/d/new"]);
        }
    });
}

#[apply(test)]
fn makes_the_directories_on_the_way_as_the_union_shows_them() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.device("mid/a/b/x")
                .file("low/a/b/x", "asked")
                .file("low/a/b/y", "");
            lab.mode("mid/a/b", 0o701)
                .owner("mid/a/b", 5, 6)
                .mode("mid/a", 0o2710);
            lab.xattr("mid/a", &lab.own("origin"), b"not to be copied");
            lab.xattr("mid/a/b", "system.posix_acl_default", &access_list());
            lab.time("mid/a/b", 1_000_000_000)
                .time("mid/a", 1_000_000_001);
            let old = lab.agrees(&["/a/b/x"]);
            let (row, new) = there_and_back(&lab, &[], "/a/b/x");
            let made = ["make-directory", "make-directory", "copy", "look"];
            assert_eq!(actions(&row), made);
            let mut rest = new.clone();
            rest.remove(&b"/a/b/x"[..]).expect("restored");
            assert_same(&settled(old), &settled(rest));
        }
    });
}

#[apply(test)]
fn of_a_file_whose_content_lies_in_another_branch() {
    in_own_mounts(|| {
        for (lowers, redirect) in [("mid:low", None), ("mid::low", Some(&b"/data/f"[..]))] {
            let lab = Lab::of(lowers, ",metacopy=on");
            let data = if redirect.is_some() {
                "low/data/f"
            } else {
                "low/d/f"
            };
            lab.file(data, "the content").mode(data, 0o600);
            fs::create_dir_all(lab.at("mid/d")).expect("our own");
            let meta = fs::File::create(lab.at("mid/d/f")).expect("our own");
            meta.set_len(11).expect("our own");
            lab.mode("mid/d/f", 0o640).owner("mid/d/f", 9, 10);
            lab.xattr("mid/d/f", "user.note", b"of the metadata");
            lab.xattr("mid/d/f", "trusted.overlay.metacopy", b"");
            if let Some(redirect) = redirect {
                lab.xattr("mid/d/f", "trusted.overlay.redirect", redirect);
            }
            lab.time("mid/d/f", 1_000_000_000).device("up/d/f");
            let (row, unhidden) = there_and_back(&lab, &[], "/d/f");
            assert_eq!(row["strategy"], "unhide");
            let (_, copied) = there_and_back(&lab, &COPY, "/d/f");
            assert_same(&settled(unhidden.clone()), &settled(copied));
            let of_file = &unhidden[&b"/d/f"[..]];
            assert!(
                of_file.contains("the content") && of_file.contains("user.note"),
                "{of_file}"
            );
            lab.brings_back(&["--to", "out"], "/d/f");
            assert_eq!(&fact(&lab.at("out/f"), Detail::Copied), of_file);
            lab.brings_back(&COPY, "/d/f");
            assert_eq!(&fact(&lab.at("up/d/f"), Detail::Copied), of_file);
        }
    });
}

#[apply(test)]
fn leaves_what_is_overlays_own_and_keeps_what_is_escaped() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            let other = if lab.is_user() { "trusted" } else { "user" };
            let escaped = lab.own("overlay.opaque");
            for path in ["mid/d/f", "mid/d"] {
                lab.file("mid/d/f", "x");
                lab.xattr(path, &lab.own("origin"), b"own")
                    .xattr(path, &escaped, b"y");
                lab.xattr(path, &lab.own("protattr"), b"own");
                lab.xattr(path, &format!("{other}.overlay.origin"), b"somebody's");
            }
            lab.xattr("mid/d", &lab.own("impure"), b"y");
            let shown = lab.agrees(&[]);
            assert!(shown[&b"/d"[..]].contains(&lab.own("opaque")), "{shown:?}");
            lab.device("up/d");
            lab.brings_back(&["--to", "out", "-r"], "/d");
            for path in ["", "/f"] {
                let out = fact(&lab.at(format!("out/d{path}")), Detail::Copied);
                assert_eq!(out, shown[format!("/d{path}").as_bytes()]);
            }
            lab.brings_back(&[&COPY[..], &["-r"]].concat(), "/d");
            for path in ["up/d", "up/d/f"] {
                let at = lab.at(path);
                for own in ["origin", "protattr", "impure"] {
                    assert_eq!(attribute(&at, &lab.own(own)), None, "{path} {own}");
                }
                assert_eq!(attribute(&at, &escaped), Some(b"y".to_vec()), "{path}");
            }
            assert_eq!(attribute(&lab.at("up/d/f"), &lab.own("opaque")), None);
            assert_same(&shown, &lab.agrees(&[]));
        }
    });
}

#[apply(test)]
fn out_of_the_union_touches_nothing_in_it() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        treasure(&lab, "low/d");
        let old = lab.agrees(&[]);
        lab.device("up/d");
        let before = (lab.branch("up"), lab.branch("low"), lab.branch("work"));
        let row = lab.brings_back(&["--to", "out", "-r"], "/d");
        assert_eq!(row["strategy"], "copy-out");
        let copied = shown(&lab.at("out"));
        assert_same(&old, &copied);
        is_the_treasure(&lab.at("out/d"));
        lab.refuses_and_changes_nothing(&lab.target(), &["--to", "out", "-r"], "/d");
        take_back(&row);
        assert!(names(&lab.at("out")).is_empty());
        // One file of it, whatever has its name.
        for take in [&|at: &Path| fs::create_dir(at), &|at: &Path| {
            fs::write(at, "mine")
        }] as [&dyn Fn(&Path) -> std::io::Result<()>; 2]
        {
            take(&lab.at("out/file")).expect("nothing has the name");
            lab.refuses_and_changes_nothing(&lab.target(), &["--to", "out"], "/d/file");
            let _ = fs::remove_dir(lab.at("out/file"));
        }
        lab.refuses_and_changes_nothing(&lab.target(), &["--to", "up"], "/d/file");
        lab.refuses_and_changes_nothing(&lab.target(), &["--to", "low/d"], "/d/file");
        assert_same(&before.0, &lab.branch("up"));
        assert_same(&before.1, &lab.branch("low"));
        assert_same(&before.2, &lab.branch("work"));
    });
}

#[apply(test)]
fn of_what_is_there_again_changes_nothing() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/f", "before")
            .file("up/f", "mine")
            .file("low/d/x", "")
            .file("up/d", "mine");
        let before = lab.disk();
        for options in [&[][..], &COPY, &["--strategy", "unhide"]] {
            for path in ["/f", "/d"] {
                let row = lab.restore(options, path).exits(1).row();
                assert!(text(&row, "nothing").contains("it is there"), "{row}");
            }
        }
        lab.restore(&COPY, "/d/x");
        assert_same(&before, &lab.disk());
    });
}

/// Nothing can be renamed from one mount to another, though both are of one file system.
#[apply(test)]
fn where_the_directory_beside_it_is_of_another_mount() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before").dir("elsewhere");
        let bind = |name: &str| {
            rustix::mount::mount_bind(lab.at("elsewhere"), lab.at(name)).expect("root may");
            Mounted(lab.at(name))
        };
        {
            let _upper = bind("up");
            lab.device("up/d");
            lab.restore(&[], "/d/f").exits(0);
            assert_eq!(fs::read(lab.at("up/d/f")).expect("it is there"), b"before");
            assert_eq!(names(&lab.at("up/d")), ["f"]);
            assert_eq!(names(&lab.at("up")), ["d"]);
        }
        assert_eq!(names(&lab.at("work")), ["work"]);
    });
}

#[apply(test)]
fn where_no_directory_is_beside_it() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before")
            .file("low/t/x", "x")
            .device("up/d")
            .device("up/t");
        fs::remove_dir_all(lab.at("work")).expect("our own");
        lab.restore(&[], "/d/f").exits(0);
        lab.restore(&[&COPY[..], &["-r"]].concat(), "/t").exits(0);
        lab.dir("work/work");
        assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/f", "/t", "/t/x"]);
    });
}

/// A link leads to where it leads in the union, and not out of it.
#[apply(test)]
fn through_a_link() {
    in_own_mounts(|| {
        for is_mounted in [false, true] {
            let lab = Lab::usual();
            lab.file("low/real/f", "before").device("up/real/f");
            lab.link("up/way", "/real").link("low/out", lab.at("out"));
            let out = format!("low{}", lab.at("out").display());
            lab.file(format!("{out}/x"), "inside")
                .device(&format!("up{}/x", &out[3..]));
            let mounted = is_mounted.then(|| lab.mount());
            let row = lab.restore(&[], "/way/f").exits(0).row();
            assert_eq!(row["path"], "/real/f");
            lab.restore(&[], "/out/x").exits(0);
            assert!(names(&lab.at("out")).is_empty());
            drop(mounted);
            let shown = lab.agrees(&[]);
            assert!(shown[&b"/real/f"[..]].contains("before"));
            assert!(shown[format!("{}/x", &out[3..]).as_bytes()].contains("inside"));
        }
    });
}

#[apply(test)]
fn of_odd_names_in_odd_places() {
    in_own_mounts(|| {
        let home = tempfile::tempdir().expect("a directory");
        let odd = home.path().join("a b:c,d\\e'f");
        let lab = Lab::on(Union::at_home(&odd, &[]), "mid:low", "");
        let name = "it's \\ a $(false) `false` \"file\"";
        lab.file(format!("low/{name}"), "before")
            .device(&format!("up/{name}"));
        lab.file(format!("low/d {name}/x"), "x")
            .device(&format!("up/d {name}"));
        let path = format!("/{name}");
        there_and_back(&lab, &[], &path);
        there_and_back(&lab, &COPY, &path);
        there_and_back(&lab, &[], &format!("/d {name}/x"));
        let mounted = lab.mount();
        let row = lab.restore(&[], &path).exits(0).row();
        assert_eq!(
            fs::read(mounted.0.join(name)).expect("it is there"),
            b"before"
        );
        take_back(&row);
        assert!(!mounted.0.join(name).exists());
    });
}

/// Whoever holds the branch has changed it by the time that a run goes on.
#[apply(test)]
fn looks_again_after_it_had_to_wait() {
    in_own_mounts(|| {
        for options in [&[][..], &COPY] {
            let lab = Lab::usual();
            lab.file("low/f", "before").device("up/f");
            let upper = fs::File::open(lab.at("up")).expect("our own");
            rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
            let mut waiting = lab
                .command(&lab.target(), options, "/f")
                .stdout(Stdio::null())
                .spawn()
                .expect("layerctl was built");
            held::until_it_waits_or_ends(&mut waiting);
            fs::remove_file(lab.at("up/f")).expect("a mark");
            lab.file("up/f", "mine");
            drop(upper);
            let status = waiting.wait().expect("it ends");
            assert_eq!(status.code(), Some(1), "{options:?}");
            assert_eq!(fs::read(lab.at("up/f")).expect("it stays"), b"mine");
            assert_eq!(names(&lab.at("work")), ["work"]);
        }
    });
}

/// What stands in the place of the mark when the copy is done is left alone.
#[apply(test)]
fn is_not_put_over_what_is_no_mark_any_more() {
    in_own_mounts(|| {
        needs::strace();
        for path in ["f", "d"] {
            let lab = Lab::usual();
            lab.file("low/f", "before").device("up/f");
            lab.file("low/d/x", "before").device("up/d");
            let options = [&COPY[..], &["-r"]].concat();
            let command = lab.command(&lab.target(), &options, &format!("/{path}"));
            let slow = Held::after("fsync", &command);
            let at = lab.at(format!("up/{path}"));
            fs::remove_file(&at).expect("a mark");
            fs::write(&at, "mine").expect("our own");
            assert_eq!(slow.let_go().code(), Some(2), "{path}");
            assert_eq!(fs::read(&at).expect("it stays"), b"mine");
            assert_eq!(names(&lab.at("work")), ["work"]);
        }
    });
}
