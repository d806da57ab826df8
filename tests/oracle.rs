//! A real AUFS kernel's answers, all of them.
use layerctl::branch::parse_spelled;
use layerctl::dir::{Dir};
use layerctl::union::*;
use crate::lab::oracle::{Answer, LookupCase, decode, kind_word, make_branches, read};

#[test]
fn core() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut bad, mut n) = (0, 0);
    for case in read::<LookupCase>("aufs-lookup.ndjson.zst") {
        let dir = tmp.path().join(case.id.to_string());
        std::fs::create_dir(&dir).unwrap();
        let spelled = format!("br:{}", make_branches(&dir, 0, &case.branches).join(":"));
        let branches = parse_spelled(spelled.as_bytes()).unwrap().iter().map(|s| Branch::aufs(s, Dir::open_root(&s.path.to_path()))).collect();
        let stack = Stack { branches };
        for reading in [Reading::Everything] {
            let root = stack.whole(reading).unwrap();
            let answer = |path: &str, follow| {
                let r = lookup(&root, &decode(path), follow).unwrap();
                match &r.entry {
                    Entry::Leaf { from, kind } => Answer::Found(kind.word().into(), *from),
                    Entry::Dir(node) => Answer::Found("directory".into(), node.provider().unwrap()),
                    Entry::Missing | Entry::Deleted{..} => Answer::Errno("ENOENT".into()),
                    Entry::Broken{errno, ..} => Answer::Errno(layerctl::error::errno_name(*errno).into()),
                }
            };
            let mut check = |p: &str, follow, want: Answer| { n+=1; let got = answer(p, follow); if got != want { bad += 1; if bad < 20 {println!("{} {} {:?} {p}: {got:?} want {want:?}", case.id, case.dirty, follow)} } };
            for (p, (k, b)) in &case.view { check(p, Follow::NotLast, Answer::Found(kind_word(k).into(), *b)); }
            for (p, e) in &case.errors { check(p, Follow::NotLast, Answer::Errno(e.clone())); }
            for (p, e) in &case.follow { check(p, Follow::All, match e { Answer::Found(k, b) => Answer::Found(kind_word(k).into(), *b), x => x.clone() }); }
            for (d, names) in &case.list {
                let r = lookup(&root, &decode(d), Follow::NotLast).unwrap();
                let Entry::Dir(node) = r.entry else { panic!() };
                let mut got: Vec<Vec<u8>> = node.names().unwrap().into_iter().filter(|nm| node.readdir_lists(nm).unwrap()).collect();
                let mut want: Vec<Vec<u8>> = names.iter().map(|x| decode(x)).collect(); want.sort(); got.sort();
                n+=1; if got != want { bad += 1; if bad < 2000 { println!("{} {} list {d} {:?}", case.id, case.dirty, got.iter().filter(|g| !want.contains(g)).chain(want.iter().filter(|g| !got.contains(g))).map(|x| String::from_utf8_lossy(x)).collect::<Vec<_>>()) } }
            }
        }
    }
    println!("{n} asked, {bad} wrong");
    assert_eq!(bad, 0);
}
