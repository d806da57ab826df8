//! Mounts of one union, several or covered.

use super::*;

#[apply(test)]
fn a_kill_before_the_refresh_is_made_good_by_the_next_run() {
    needs::strace();
    let output = live::imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate empty
         strace -o /dev/null -e trace=fspick -e inject=fspick:signal=KILL:when=2 $LAYERCTL restore $H/mnt/f; look
         strace -o trace/t -e trace=fsconfig $LAYERCTL restore $H/mnt/f >/dev/null; grep -c RECONFIGURE trace/t",
    );
    assert_eq!(output.text(), "\n1\n", "{}", output.stderr);
}

#[apply(test)]
fn a_mount_point_that_something_else_covers_is_not_taken_for_the_union() {
    for strategy in ["copy", "unhide"] {
        let output = live::imitation(&format!(
            "echo x > br1/f; touch br0/.wh.f; imitate empty; mount -t tmpfs other mnt
             echo \"34 33 0:30 / $H/mnt rw,relatime - tmpfs other rw\" >> /proc/self/mountinfo
             restore --strategy {strategy} si_abc123:/f >/dev/null; echo $?; look; ls -A mnt"
        ));
        assert_eq!(
            output.text(),
            "2\n./.wh.f \n",
            "{strategy}: {}",
            output.stderr
        );
    }
}

/// The same directory may be the writable branch of two mounts (FACTS-aufs 4.11): both have
/// cached what was there.
#[apply(test)]
fn every_union_that_has_the_branch_is_refreshed() {
    needs::strace();
    let output = live::imitation(
        "mkdir mnt2; echo x > br1/f; touch br0/.wh.f; imitate br1; mount --bind mnt mnt2
         mkdir /sys/fs/aufs/si_def456; cp /sys/fs/aufs/si_abc123/* /sys/fs/aufs/si_def456/
         echo \"35 15 0:31 / $H/mnt2 rw,relatime - aufs none rw,si=def456\" >> /proc/self/mountinfo
         strace -o trace/t -e trace=fspick,unlinkat $LAYERCTL restore si_abc123:/f > /dev/null; echo $?; sed 's/,.*//' trace/t | grep -v '^+'",
    );
    let lines: Vec<&str> = output.text().lines().collect();
    let unlink = lines
        .iter()
        .position(|line| line.starts_with("unlinkat"))
        .expect("the mark is removed");
    // Each by a descriptor of its own.
    let refreshed = lines[unlink..]
        .iter()
        .filter(|line| line.starts_with("fspick"));
    let mounts: std::collections::BTreeSet<&&str> = refreshed.collect();
    assert_eq!(mounts.len(), 2, "{lines:?} {}", output.stderr);
}

/// What cannot be looked at has not been found to be missing.
#[apply(test)]
fn a_mount_that_is_another_by_now_has_forgotten_nothing() {
    let output = live::imitation(
        "echo x > br0/f; mkdir real; mount --bind /proc real; imitate empty
         number=$(grep \" $H/mnt \" real/self/mountinfo | cut -d' ' -f1)
         echo \"$number 15 0:77 / $H/elsewhere rw - tmpfs other rw\" >> /proc/self/mountinfo
         restore --dry-run si_abc123:/f; echo $?; restore si_abc123:/f; echo $?; look",
    );
    assert_eq!(output.text(), "2\n2\n./f \n", "{}", output.stderr);
    let words = "is not, or no longer, the union";
    assert_eq!(output.stderr.matches(words).count(), 2, "{}", output.stderr);
}
