//! Several files of the snapshot that are one inode in the target.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::tests::{World, assert_equal, clean, options};

fn link(world: &World, from: &str, to: &str) {
    fs::hard_link(world.from(from), world.from(to)).expect("a link");
}

/// Gives files of the source the same time, and each its mode.
fn dress(world: &World, files: &[(&str, u32)]) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    for (name, mode) in files {
        let file = fs::File::options()
            .write(true)
            .open(world.from(name))
            .expect("a file");
        file.set_modified(then).expect("a time");
        file.set_permissions(PermissionsExt::from_mode(*mode))
            .expect("a mode");
    }
}

/// Makes files of the target one file, like a program that links files of equal content.
fn merge(world: &World, first: &str, others: &[&str]) {
    for other in others {
        fs::remove_file(world.to(other)).expect("removed");
        fs::hard_link(world.to(first), world.to(other)).expect("a link");
    }
}

fn is_one(world: &World, a: &str, b: &str) -> bool {
    let inode = |name: &str| fs::metadata(world.to(name)).expect("stat").ino();
    inode(a) == inode(b)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").permissions().mode() & 0o7777
}

#[test]
fn two_groups_of_hard_links_that_are_one_file_get_their_own_modes() {
    let world = World::new();
    for name in ["a", "c", "e"] {
        world.write(name, b"same");
    }
    link(&world, "a", "b");
    link(&world, "c", "d");
    dress(&world, &[("a", 0o600), ("c", 0o644), ("e", 0o600)]);
    world.backup();
    clean(&world.restore(&options()));
    // Without a check, each path sets its mode in path order, and the last one wins.
    merge(&world, "a", &["b", "c", "d", "e"]);

    clean(&world.restore(&options()));
    assert_equal(&world);
    assert!(is_one(&world, "a", "b") && is_one(&world, "c", "d") && !is_one(&world, "a", "c"));
    assert_eq!((mode(&world.to("a")), mode(&world.to("c"))), (0o600, 0o644));

    let again = world.restore(&options());
    clean(&again);
    assert_eq!(again.0.files_written, 0, "and then all of it is as it was");
}

#[test]
fn an_attribute_of_one_file_is_not_set_on_another_that_is_linked_to_it() {
    let world = World::new();
    world.write("a", b"same");
    world.write("b", b"same");
    dress(&world, &[("a", 0o644), ("b", 0o644)]);
    let file = fs::File::open(world.from("a")).expect("a file");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::fsetxattr(&file, "user.test", b"a", flags).is_err() {
        return;
    }
    world.backup();
    clean(&world.restore(&options()));
    merge(&world, "b", &["a"]);
    clean(&world.restore(&options()));
    assert_equal(&world);

    // An attribute is not removed from a name outside the restored tree either.
    world.write("other", b"");
    let outside = tempfile::tempdir_in(world.target.path()).expect("a directory");
    let kept = outside.path().join("kept");
    fs::hard_link(world.to("b"), &kept).expect("a link");
    rustix::fs::setxattr(&kept, "user.mine", b"mine", flags).expect("an attribute");
    clean(&world.restore(&options()));
    let mut room = [0; 16];
    assert_eq!(rustix::fs::getxattr(&kept, "user.mine", &mut room), Ok(4));
    assert_eq!(fs::metadata(world.to("b")).expect("stat").nlink(), 1);
}
