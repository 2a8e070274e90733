//! Tests of configurations that are accepted, and of the messages for mistakes.

use crate::ccn::profile::SourceLocation;

use super::*;
use crate::ops::forget::{Period, PeriodSlots};

const NODE: &str = r#"
repository = "repo"
passphrase_file = "/etc/icecore/passphrase"
host = "node-1"

[[source]]
name = "db"
kind = "postgresql"
container = "pyaleph-postgres-1"
user = "aleph"

[[source]]
name = "local-storage"
kind = "tree"
volume = "pyaleph_pyaleph-local-storage"
immutable = true
not_older_than = "db"
exclude = ["*.tmp"]

[[source]]
name = "keys"
kind = "tree"
path = "keys"
unchanged = "alarm"
before = "docker stop x"
after = ["docker start x", "true"]

[retention]
keep_hourly = 48
keep_monthly = "all"
keep_daily = 0

[hooks]
on_failure = "mail -s 'it failed' root"

[node]
database = "db"
local_storage = "local-storage"
keys = "keys"
writers = ["pyaleph-pyaleph-1"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    let file = Path::new("/opt/node/icecore.toml");
    Config::parse(file, text, Some(Path::new("/home/user"))).map_err(|err| err.to_string())
}

#[test]
fn a_nodes_configuration_is_read() {
    let config = parse(NODE).expect("a good configuration");
    assert_eq!(config.repository, Some("/opt/node/repo".into()));
    assert_eq!(config.host.as_deref(), Some("node-1"));
    let names: Vec<&str> = config
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(names, ["db", "local-storage", "keys"]);

    assert!(
        matches!(&config.sources[0].capture, SourceKindConfig::Postgres { smallest, .. } if *smallest == 0.5)
    );
    assert!(matches!(
        &config.sources[1].capture,
        SourceKindConfig::Tree {
            immutable: true,
            unchanged: false,
            ..
        }
    ));
    assert!(matches!(
        &config.sources[2].capture,
        SourceKindConfig::Tree {
            unchanged: true,
            ..
        }
    ));

    let SourceKindConfig::Tree {
        place: SourceLocation::Path(path),
        ..
    } = &config.sources[2].capture
    else {
        panic!("a path")
    };
    assert_eq!(path, Path::new("/opt/node/keys"));
    assert_eq!(config.sources[2].before[0].words(), ["docker", "stop", "x"]);
    assert_eq!(config.sources[2].after.len(), 2);

    assert_eq!(
        config.retention.periods,
        [
            (Period::Hour, PeriodSlots::Some(48)),
            (Period::Month, PeriodSlots::All)
        ]
    );
    assert_eq!(config.hooks.on_failure[0].words()[2], "it failed");
    assert_eq!(
        config.node.keys.as_ref().map(|part| part.source.as_str()),
        Some("keys")
    );
    assert!(config.node.database.is_some() && config.node.ipfs.is_none());
}

#[test]
fn an_empty_configuration_is_accepted() {
    let config = parse("").expect("an empty file");
    assert!(
        config.sources.is_empty() && config.repository.is_none() && config.retention.is_empty()
    );
}

/// Regression test: `0x30` was read by its digits, as 30.
#[test]
fn numbers_are_read_in_their_base() {
    let all = parse("[retention]\nkeep_last = -1\nkeep_within = \"0d\"")
        .expect("as in restic and borg")
        .retention;
    assert_eq!((all.last, all.within), (Some(PeriodSlots::All), None));
    let text = "[retention]\nkeep_hourly = 0x30\nkeep_daily = 1_0\nkeep_weekly = 0b11";
    let periods = parse(text).expect("numbers").retention.periods;
    let expected = [(Period::Hour, 48), (Period::Day, 10), (Period::Week, 3)];
    assert_eq!(
        periods,
        expected.map(|(period, slots)| (period, PeriodSlots::Some(slots)))
    );
}

/// Each mistake, the line that the message names, and a part of the message.
#[test]
fn mistakes_are_reported_with_line_and_key() {
    let source = "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/x\"\n";
    let cases: &[(&str, usize, &str)] = &[
        ("repositry = \"x\"", 1, "'repositry': unknown key"),
        (
            "\n\nhost = 3",
            3,
            "'host': expected a quoted string, found a TOML integer",
        ),
        ("host = \"\"", 1, "empty host"),
        ("host = \" \"", 1, "blanks"),
        ("repository = \"~user/repo\"", 1, "another user's home"),
        ("repository = \"$HOME/repo\"", 1, "a variable"),
        ("passphrase_file = \"~user/p\"", 1, "another user's home"),
        ("cache_dir = \"${HOME}/c\"", 1, "a variable"),
        ("repository_id = \"07\"", 1, "not a repository id"),
        (
            "[[source]]\nname = \"a\"\npath = \"/x\"",
            1,
            "missing: it is one of \"tree\", \"command\"",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/x\"\nonly = []",
            5,
            "names no path",
        ),
        ("[verify]\nsample = \"5\"", 2, "write 5%"),
        (
            "no_passphrase = true\npassphrase_file = \"p\"",
            1,
            "cannot be combined with passphrase_file",
        ),
        ("[backup]\ntags = [\"a\", \"\"]", 2, "empty tag"),
        ("[backup]\ntags = \"a,b\"", 2, "cannot contain a comma"),
        ("[retention]\nkeep_tags = [\" \"]", 2, "blanks"),
        ("[backup]\nmemory = \"1\"", 2, "at least 64MiB"),
        ("[verify]\nmax_time = \"0s\"", 2, "greater than 0"),
        (
            "passphrase_file = \"a\"\npassphrase_command = \"b\"",
            2,
            "cannot be combined with passphrase_file",
        ),
        (
            "[retention]\nkeep_daily = \"some\"",
            2,
            "[retention] 'keep_daily': 'some' is neither",
        ),
        ("[retention]\nkeep_daily = -2", 2, "'-2' is neither"),
        (
            "[retention]\nkeep_within_weekly = \"1m\"",
            2,
            "'1m' can mean a minute or a month: write 1mo (30 days) or 1min",
        ),
        (
            "[retention]\nkeep_within = \"7\"",
            2,
            "'keep_within': '7' is not a duration",
        ),
        (
            "[backup]\nlevel = 20",
            2,
            "[backup] 'level': it must be from 1 to 19",
        ),
        ("[verify]\nread_data = \"yes\"", 2, "true or false"),
        ("[hooks]\nbefore = \"'\"", 2, "[hooks] 'before'"),
        ("[source]\nname = \"a\"", 1, "[[source]]"),
        (
            "[[source]]\nkind = \"tree\"",
            1,
            "'name': this key is missing",
        ),
        ("[[source]]\nname = \"a/b\"\nkind = \"tree\"", 2, "'name'"),
        (
            "[[source]]\nname = \"a\"\nkind = \"disk\"",
            3,
            "source 'a' 'kind': 'disk' is not one of",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"tree\"",
            1,
            "a tree needs a 'path' or a 'volume'",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"x\"\nuser = \"y\"",
            5,
            "source 'a' 'user': unknown key",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"command\"",
            1,
            "'command': this key is missing",
        ),
        (
            "[[source]]\nname = \"a\"\nkind = \"postgresql\"\ncontainer = \"c\"\nport = 1",
            5,
            "'port': it cannot be combined with 'container'",
        ),
        (
            "[node]\nkeys = \"k\"",
            2,
            "[node] 'keys': there is no source 'k'",
        ),
        ("[node", 1, ""),
        ("a = 1\na = 2", 2, ""),
    ];

    for (text, line, what) in cases {
        let err = parse(text).expect_err(text);
        assert!(
            err.starts_with(&format!("/opt/node/icecore.toml, line {line}")),
            "{text:?}: {err}"
        );
        assert!(err.contains(what), "{text:?}: {err}");
        assert!(!err.contains('\n'), "{err:?}");
    }

    for (more, line, what) in [
        ("unchanged = \"warn\"", 5, "unknown value 'warn'"),
        (
            "not_older_than = \"db\"",
            5,
            "no source 'db' precedes this one",
        ),
        ("exclude = [\"ok\",\n  \"b[0\"]", 5, "can match nothing"),
        ("only = [\"../x\"]", 5, "'only'"),
        ("volume = \"v\"", 5, "cannot be combined with 'path'"),
        (
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"y\"",
            6,
            "duplicate source name 'a'",
        ),
    ] {
        let err = parse(&format!("{source}{more}\n")).expect_err(more);
        assert!(
            err.contains(&format!("line {line}, ")) && err.contains(what),
            "{more:?}: {err}"
        );
    }
}

#[test]
fn a_tilde_is_the_home_directory() {
    let home = PathBuf::from("/home/user");
    let text = "repository = \"~/repo\"\npassphrase_file = \"~/p\"\ncache_dir = \"~\"\n[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"~/a\"\n";
    let config = parse(text).expect("good");
    assert_eq!(config.repository, Some(home.join("repo").into_os_string()));
    assert_eq!(config.passphrase_file, Some(home.join("p")));
    assert_eq!(config.cache_dir, Some(home.clone()));
    let SourceKindConfig::Tree {
        place: SourceLocation::Path(path),
        ..
    } = &config.sources[0].capture
    else {
        panic!("a path")
    };
    assert_eq!(*path, home.join("a"));
    let odd = parse("repository = \"~/a:b\"").expect("good");
    assert_eq!(
        odd.repository,
        Some(home.join("a:b").into_os_string()),
        "a colon makes it no host"
    );
}

#[test]
fn a_secret_in_the_file_is_not_printed() {
    let err = parse("passphrase = \"hunter2\"\n").expect_err("unknown key");
    assert!(!err.contains("hunter2"), "{err}");
    let err = parse("passphrase_command = \"echo hunter2\n").expect_err("an open quote");
    assert!(!err.contains("hunter2"), "{err}");
}

/// An error about the type of a value does not have the value.
#[test]
fn a_value_of_the_wrong_type_is_not_printed() {
    let source = "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/x\"\n";
    for (text, what) in [
        (
            "no_passphrase = \"hunter2\"",
            "true or false, found a TOML string",
        ),
        ("backup = \"hunter2\"", "a table, found a TOML string"),
        ("source = \"hunter2\"", "[[source]], found a TOML string"),
        ("source = [\"hunter2\"]", "a table, found a TOML string"),
        (
            "host = [\"hunter2\"]",
            "a quoted string, found a TOML array",
        ),
        (
            "host = { x = \"hunter2\" }",
            "a quoted string, found a TOML table",
        ),
        (
            "host = 2026-01-01",
            "a quoted string, found a TOML datetime",
        ),
        (
            "[backup]\nlevel = \"hunter2\"",
            "a whole number, found a TOML string",
        ),
        (
            "[backup]\ntags = [[\"hunter2\"]]",
            "a quoted string, found a TOML array",
        ),
        (
            "[retention]\nkeep_last = [\"hunter2\"]",
            "found a TOML array",
        ),
        (
            "[hooks]\nbefore = { x = \"hunter2\" }",
            "list of strings, found a TOML table",
        ),
    ] {
        let err = parse(text).expect_err(text);
        assert!(err.contains(what), "{text:?}: {err}");
        assert!(!err.contains("hunter2"), "{text:?}: {err}");
    }
    let err = parse(&format!("{source}immutable = \"hunter2\"")).expect_err("a string");
    assert!(
        err.contains("line 5, source 'a' 'immutable': expected true or false"),
        "{err}"
    );
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn tables_of_one_line_and_dotted_keys_are_read() {
    let text = "backup = { level = 5, tags = \"a\" }\nprune.grace = \"2d\"\n\
                source = [{ name = \"a\", kind = \"tree\", path = \"x\" }]\n";
    let config = parse(text).expect("a good configuration");
    assert_eq!(config.backup.level, Some(5));
    assert_eq!(config.backup.tags, ["a"]);
    assert_eq!(config.prune.grace, Some(Duration::from_secs(2 * 86_400)));
    assert_eq!(config.sources[0].name, "a");

    for (text, what) in [
        (
            "\nbackup = { level = 20 }",
            "line 2, [backup] 'level': it must be from 1 to 19",
        ),
        (
            "\nprune.grac = \"2d\"",
            "line 2, [prune] 'grac': unknown key",
        ),
        (
            "\nsource = [{ name = \"a\", kind = \"tree\", paths = \"x\" }]",
            "line 2, source 'a' 'paths': unknown key",
        ),
    ] {
        let err = parse(text).expect_err(text);
        assert!(err.contains(what), "{text:?}: {err}");
    }
}

#[test]
fn the_first_unknown_key_of_the_file_is_reported() {
    let err = parse("zebra = 1\nant = 2\n").expect_err("two unknown keys");
    assert!(err.contains("line 1, 'zebra': unknown key"), "{err}");
    let err = parse("\"a`b\" = 1\n").expect_err("an unknown key");
    assert!(
        err.contains("'a`b': unknown key; the keys here are backup, cache_dir"),
        "{err}"
    );
}

#[test]
fn numbers_beyond_64_bits_are_out_of_bounds() {
    for number in [
        "9223372036854775808",
        "99999999999999999999",
        "-99999999999999999999",
    ] {
        let err = parse(&format!("[backup]\nlevel = {number}")).expect_err(number);
        assert!(err.contains("it must be from 1 to 19"), "{err}");
        let err = parse(&format!("[retention]\nkeep_last = {number}")).expect_err(number);
        assert!(err.contains("is neither a number nor 'all'"), "{err}");
    }
}

#[test]
fn a_mistake_in_a_list_is_reported_at_its_line() {
    let err = parse("[backup]\ntags = [\n  \"a\",\n  \"b,c\",\n]\n").expect_err("a comma");
    assert!(
        err.contains("line 4, [backup] 'tags': a tag cannot contain a comma"),
        "{err}"
    );
}

#[test]
fn shares_and_addresses() {
    let postgres = |share: &str| {
        parse(&format!(
            "[[source]]\nname = \"a\"\nkind = \"postgresql\"\nsmallest = \"{share}\"\n"
        ))
    };
    for (share, value) in [("0%", 0.0), ("50", 0.5), ("100%", 1.0)] {
        let config = postgres(share).expect("a share");
        assert!(
            matches!(config.sources[0].capture, SourceKindConfig::Postgres { smallest, .. } if smallest == value),
            "{share}"
        );
    }
    assert!(postgres("101%").is_err() && postgres("x").is_err());
    for (given, address) in [
        ("sftp://h/p", "sftp://h/p"),
        ("u@h:/p", "u@h:/p"),
        ("/r", "/r"),
        ("r", "/opt/node/r"),
    ] {
        let config = parse(&format!("repository = \"{given}\"")).expect("an address");
        assert_eq!(config.repository, Some(address.into()), "{given}");
    }
}
