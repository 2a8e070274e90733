//! Tests of the values of the command line: which are accepted, and the messages for the others.

use super::*;

fn tree(arg: &str) -> Result<(String, String), String> {
    named_path(OsStr::new(arg)).map(|n| (n.name, n.path.display().to_string()))
}

fn pair(a: &str, b: &str) -> Result<(String, String), String> {
    Ok((a.to_owned(), b.to_owned()))
}

#[test]
fn a_name_needs_an_equals_sign_before_any_slash() {
    assert_eq!(tree("home=/srv/x"), pair("home", "/srv/x"));
    assert_eq!(tree("/srv/a=b/c"), pair("c", "/srv/a=b/c"));
    assert_eq!(tree("./x=y/z"), pair("z", "./x=y/z"));
    assert_eq!(tree("a=b=c"), pair("a", "b=c"));
    assert_eq!(tree("/"), pair("root", "/"));
    assert_eq!(tree("/usr/share/"), pair("share", "/usr/share/"));
    assert!(tree("=x").is_err() && tree("x=").is_err() && tree("").is_err());
    assert!(tree("a:b=/x").is_err());
}

#[test]
fn a_path_whose_last_component_is_no_name_asks_for_one() {
    let problem = tree("/srv/a=b").expect_err("an equals sign in the default name");
    assert!(problem.contains("NAME=/srv/a=b"), "{problem}");
    assert!(named_path(OsStr::from_bytes(b"/srv/\xff")).is_err());
}

#[test]
fn dots_are_named_by_the_directory_they_stand_for() {
    let here = std::env::current_dir().expect("a current directory");
    let name = here
        .file_name()
        .and_then(OsStr::to_str)
        .expect("UTF-8")
        .to_owned();
    assert_eq!(tree("."), Ok((name, ".".to_owned())));
    assert_eq!(tree("/usr/share/.."), pair("usr", "/usr/share/.."));
}

#[test]
fn a_tilde_is_the_home_directory_or_an_error() {
    let home = crate::home::home().expect("tests have a home");
    let read = |text: &str| path(OsStr::new(text));
    assert_eq!(read("~"), Ok(home.clone()));
    assert_eq!(read("~/a b/~"), Ok(home.join("a b/~")));
    assert_eq!(
        read("~//a"),
        Ok(home.join("a")),
        "never a path from the root"
    );

    for as_it_is in [
        "/~/a", "./~", "a~", "a/~/b", "./$HOME", "$", "$1", "a$HOME", "-",
    ] {
        assert_eq!(read(as_it_is), Ok(as_it_is.into()));
    }

    for bad in [
        "",
        "~user",
        "~user/a",
        "~~",
        "~+",
        "$HOME",
        "$HOME/a",
        "${HOME}/a",
        "$x",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }

    assert_eq!(
        tree("n=~/x"),
        pair("n", &home.join("x").display().to_string())
    );
    assert_eq!(
        tree("~/x"),
        pair("x", &home.join("x").display().to_string())
    );
    assert!(tree("n=~user/x").is_err() && tree("$HOME/x").is_err());
}

#[test]
fn a_command_is_split_as_posix_words() {
    let command = named_command("db=sh -c 'a b' \"c\"").expect("a command");
    assert_eq!(
        (command.name.as_str(), command.command.words()),
        ("db", &["sh", "-c", "a b", "c"].map(String::from)[..])
    );
    for bad in ["db", "db=", "db='", "=x", "a/b=x"] {
        assert!(named_command(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_snapshot_with_source_and_path_is_parsed() {
    let parse = |text: &str| snap_path(OsStr::new(text));
    let whole = parse("latest").expect("latest");
    assert_eq!((whole.snap, whole.source), ("latest".to_owned(), None));

    let deep = parse("0aF1:home/a//b:c/").expect("a path");
    assert_eq!(deep.snap, "0af1");
    assert_eq!(deep.source.as_deref(), Some("home"));
    assert_eq!(deep.path.to_slashed(), b"a/b:c");
    assert!(parse("0a11:home").expect("a source").path.is_root());
    assert!(snap_path(OsStr::from_bytes(b"0a11:home/\xff")).is_ok());
    assert_eq!(
        parse("latest:home/./a/.")
            .expect("dots name nothing")
            .path
            .to_slashed(),
        b"a"
    );

    for bad in [
        "",
        ":a",
        "xyz",
        "abc",
        "wxyz",
        "latest:a=b",
        "latest:a/../b",
        &"0".repeat(65),
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    // The sources that exist are known only once the repository is open.
    for none in ["latest:", "latest:/", "latest:/srv/app"] {
        assert_eq!(
            parse(none).expect("a form to be told").source.as_deref(),
            Some(""),
            "{none}"
        );
    }

    assert!(snap_source("latest").is_err() && snap_source("latest:x/y").is_err());
}

#[test]
fn an_invalid_snapshot_gets_a_hint_at_the_valid_form() {
    for (text, right) in [
        ("latest:home", "write 'latest'"),
        ("0a11:home/x", "write '0a11'"),
        ("LATEST", "write 'latest'"),
        (" latest", "write 'latest'"),
        ("latest~1", "'icecore snapshots'"),
        ("latest^", "'icecore snapshots'"),
        ("5", "at least the first 4"),
        ("nosuch:x", "at least the first 4"),
    ] {
        let problem = snap(text).expect_err(text);
        assert!(problem.contains(right), "{text}: {problem}");
    }
    let problem = snap_path(OsStr::new("latest:a/../b")).expect_err("two dots");
    assert!(problem.contains("from the source's root"), "{problem}");
}
