//! Command lines that cannot be meant: unknown words, bad values, options that exclude each other.

use super::environment::Session;

/// Plays command lines without a repository.
fn play(name: &'static str, lines: &[&str]) {
    let mut session = Session::new(name);
    for line in lines {
        session.run(line);
    }
    session.finish();
}

#[test]
fn an_unknown_word_is_named_with_similar_words() {
    play(
        "unknown_words",
        &[
            "",
            "bakcup",
            "snapshot",
            "nonsense",
            "snapshots --hots alpha",
            "backup --no-such-option",
            "key",
            "key lists",
            "repair",
            "repair everything",
            "node",
            "completions tcsh",
            "restore latest out --overwrite sometimes",
            "forget --group-by colour",
        ],
    );
}

#[test]
fn a_missing_argument_is_named() {
    play(
        "missing_arguments",
        &[
            "ls",
            "find",
            "cat",
            "cat latest",
            "diff latest",
            "restore latest",
            "undelete",
            "tag latest",
            "tag --protect",
            "copy",
            "key remove",
            "key export",
            "backup",
            "backup --tag",
            "forget",
            "node restore",
            "man",
        ],
    );
}

#[test]
fn a_bad_size_number_or_span_shows_how_to_write_it() {
    play(
        "bad_quantities",
        &[
            "backup --memory 1 data",
            "backup --memory lots data",
            "backup --exclude-larger-than 0 data",
            "backup --exclude-larger-than -1 data",
            "backup --exclude-larger-than 5XB data",
            "backup --level 20 data",
            "backup --level fast data",
            "backup --threads 0 data",
            "backup --checkpoint-every soon data",
            "backup --checkpoint-every 0s data",
            "init --parity 0",
            "init --parity 101",
            "init --parity 1.5",
            "verify --sample 0.05",
            "verify --sample 5",
            "verify --sample 0%",
            "verify --sample 101%",
            "verify --max-time 0s",
            "verify --max-time 10",
            "verify --max-bytes 0",
            "status --max-age -1h",
            "status --max-age 1x",
            "forget --keep-daily many",
            "forget --keep-daily -2",
            "forget --keep-within 6m",
            "forget --keep-within month",
            "prune --grace soon",
            "prune --max-repack much",
        ],
    );
}

#[test]
fn the_error_for_a_bad_name_describes_the_syntax() {
    play(
        "bad_names",
        &[
            "backup a:b=data",
            "backup =data",
            "backup ' =data'",
            "backup ..=data",
            "backup name=",
            "backup ''",
            "backup --command db",
            "backup --command 'db=dump | gzip'",
            "backup --command 'db=echo $HOME'",
            "backup --command db=",
            "backup --command 'db=\"unclosed'",
            "backup --stdin a/b",
            "backup --tag a,b data",
            "backup --tag '' data",
            "backup --host ' ' data",
            "backup --host 'a ' data",
            "snapshots --tag 'a\tb'",
            "-r '~other/repo' snapshots",
            "-r '$HOME/repo' snapshots",
            "-r '' snapshots",
            "-r sftp://host/repo snapshots",
            "-r host:/repo snapshots",
            "--accept-repository 12 snapshots",
        ],
    );
}

#[test]
fn the_error_for_a_bad_snapshot_describes_the_syntax() {
    play(
        "bad_snapshots",
        &[
            "ls 12",
            "ls Latest",
            "ls latest~1",
            "ls 'latest '",
            "ls xyz123",
            "ls ''",
            "ls latest:data/../other",
            "diff latest:data latest",
            "forget latest:data",
            "backup --parent latest data",
            "tag all --protect",
        ],
    );
}

#[test]
fn options_that_exclude_each_other_are_both_named() {
    play(
        "conflicting_options",
        &[
            "-q -v snapshots",
            "--passphrase-file a --passphrase-command b snapshots",
            "--no-passphrase --passphrase-file a snapshots",
            "ls latest --host alpha --any-host",
            "restore latest out --numeric-ids --no-owner",
            "tag latest --protect --unprotect",
            "backup --parity 5 data",
            "backup data --stdin data",
            "backup data other/data",
            "backup --source db data",
            "forget --keep-last 1 latest",
            "key add --new-passphrase-file a --new-key-file b",
            "cat latest:data --json",
            "restore latest:data/small - --json",
        ],
    );
}

#[test]
fn a_pattern_that_cannot_be_meant_is_refused() {
    let mut session = Session::with_snapshot("bad_patterns");
    for line in [
        "backup data --exclude ''",
        "backup data --exclude '[a'",
        "backup data --exclude-file none.txt",
        "backup data --files-from none.txt",
        "restore latest out --include ''",
        "restore latest out --include '[a'",
        "find ''",
        "find '[a'",
        "find '!a'",
    ] {
        session.run(line);
    }
    session.finish();
}

#[test]
fn an_invalid_variable_is_named() {
    let mut session = Session::new("bad_variables");
    for (name, value) in [
        ("ICECORE_REPO", "$HOME/repo"),
        ("ICECORE_CACHE_DIR", "~other/cache"),
        ("ICECORE_STATE_DIR", "$HOME/state"),
        ("ICECORE_CONFIG", "none.toml"),
        ("ICECORE_NO_PASSPHRASE", "maybe"),
        ("ICECORE_PASSPHRASE", "secret"),
    ] {
        session.call("init").with(name, value).run();
    }
    session.call("snapshots").without("ICECORE_REPO").run();
    session.finish();
}
