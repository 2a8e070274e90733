//! The help texts of icecore and of each of its commands.

use super::environment::{NO_SNAPSHOT, Session};
use super::snapshot;

/// Returns the names below the line `Commands:` of a help text.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A text that is wrapped continues further to the right.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Compares both help texts of a command, and of each command that it lists. Returns the names of all.
fn check_help(session: &mut Session, command: &str) -> Vec<String> {
    let mut text = String::new();
    let mut short = String::new();
    for option in ["-h", "--help"] {
        let line = format!("{command} {option}");
        let ran = session.call(line.trim()).play();
        assert_eq!(ran.code, 0, "icecore {line}");
        assert_eq!(ran.stderr, "", "icecore {line}");
        text.push_str(&format!("$ icecore {}\n{}\n", line.trim(), ran.stdout));
        short = if option == "-h" { ran.stdout } else { short };
    }

    let name = if command.is_empty() {
        "icecore".to_owned()
    } else {
        command.replace(' ', "-")
    };
    snapshot::check(&format!("help/{name}"), &text);

    let mut names = vec![name];
    for inner in commands(&short) {
        names.extend(check_help(session, format!("{command} {inner}").trim()));
    }
    names
}

#[test]
fn each_command_has_its_help() {
    let mut session = Session::new(NO_SNAPSHOT);
    let mut names = check_help(&mut session, "");
    names.sort();

    let mut files: Vec<String> = std::fs::read_dir(snapshot::directory().join("help"))
        .expect("the snapshots of help texts")
        .map(|entry| entry.expect("a listed name").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    files.sort();
    assert_eq!(names, files, "one file for each command");
    assert!(names.len() > 30, "{names:?}");
}

#[test]
fn no_line_of_help_is_wider_than_the_terminal() {
    let mut session = Session::new(NO_SNAPSHOT);
    for line in ["--help", "backup --help", "forget -h", "restore --help"] {
        let ran = session.quietly(line);
        let longest = ran.stdout.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(100), "icecore {line}: {longest:?}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let ran = Session::new(NO_SNAPSHOT).quietly("--version");
    assert_eq!(
        ran.stdout,
        format!("icecore {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn each_command_has_its_manual_page() {
    let mut session = Session::new("manual_pages");
    session.run("man pages");
    let mut names: Vec<String> = std::fs::read_dir(session.path("pages"))
        .expect("the pages")
        .map(|entry| {
            entry
                .expect("a listed name")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    session.say(&format!("the pages\n{}", names.join("\n")));
    session.finish();
}

#[test]
fn each_shell_has_its_completions() {
    let mut session = Session::new(NO_SNAPSHOT);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = session.quietly(&format!("completions {shell}"));
        assert!(ran.stdout.contains("undelete"), "{shell}");
    }
}
