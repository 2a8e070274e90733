//! Errors of `icecore.toml`: each names the file, the line and the key.

use super::environment::Session;

/// Runs a command with each of these texts as its configuration.
fn play(name: &'static str, texts: &[&str]) {
    let mut session = Session::new(name);
    for text in texts {
        session.say(&format!("icecore.toml: {text:?}"));
        session.file("icecore.toml", text);
        session.call("snapshots").without("ICECORE_REPO").run();
    }
    session.finish();
}

#[test]
fn a_configuration_that_is_not_toml_names_the_line() {
    play(
        "config_syntax",
        &[
            "host = \"alpha\"\nhost = \"beta\"\n",
            "\n\nhost = alpha\n",
            "[backup\n",
            "host = \"alpha\n",
            "= 1\n",
        ],
    );
}

#[test]
fn a_wrong_key_names_the_line_and_the_keys_there_are() {
    play(
        "config_keys",
        &[
            "hots = \"alpha\"\n",
            "\n[backup]\nlevle = 3\n",
            "[retention]\nkeep_dayly = 14\n",
            "[colours]\n",
            "[[source]]\nkind = \"tree\"\n",
            "[[source]]\nname = \"etc\"\n",
            "[[source]]\nname = \"etc\"\nkind = \"tree\"\n",
            "[[source]]\nname = \"db\"\nkind = \"command\"\n",
            "[[source]]\nname = \"etc\"\nkind = \"tree\"\npath = \"/etc\"\npaths = []\n",
            "[node]\nblocks = \"x\"\n",
        ],
    );
}

#[test]
fn a_value_of_the_wrong_type_names_the_line_and_the_type() {
    play(
        "config_types",
        &[
            "host = 5\n",
            "no_passphrase = \"yes\"\n",
            "backup = 3\n",
            "source = 3\n",
            "[source]\nname = \"etc\"\n",
            "[backup]\ntags = 5\n",
            "[backup]\ntags = [1]\n",
            "[backup]\nlevel = \"3\"\n",
            "[backup]\nmemory = 5\n",
            "[hooks]\nbefore = 1\n",
        ],
    );
}

#[test]
fn a_value_out_of_bounds_names_the_line_and_the_bounds() {
    play(
        "config_values",
        &[
            "host = \"\"\n",
            "repository = \"\"\n",
            "repository = \"sftp://host/repo\"\n",
            "repository_id = \"12\"\n",
            "[backup]\nlevel = 20\n",
            "[backup]\nmemory = \"1MiB\"\n",
            "[backup]\ncheckpoint_every = \"0s\"\n",
            "[backup]\ntags = [\"a,b\"]\n",
            "[retention]\nkeep_daily = \"some\"\n",
            "[retention]\nkeep_within = \"6m\"\n",
            "[verify]\nsample = \"5\"\n",
            "[verify]\nmax_bytes = \"0\"\n",
            "[prune]\ngrace = \"soon\"\n",
            "[hooks]\nbefore = [\"a | b\"]\n",
            "[[source]]\nname = \"a:b\"\n",
            "[[source]]\nname = \"etc\"\nkind = \"files\"\n",
            "[[source]]\nname = \"db\"\nkind = \"command\"\ncommand = \"dump\"\nchunk = \"4KiB\"\n",
            "[[source]]\nname = \"db\"\nkind = \"command\"\ncommand = \"dump\"\nsmallest = \"most\"\n",
        ],
    );
}

#[test]
fn settings_that_exclude_each_other_are_named() {
    play(
        "config_conflicts",
        &[
            "passphrase_file = \"a\"\npassphrase_command = \"b\"\n",
            "no_passphrase = true\npassphrase_file = \"a\"\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\n[[source]]\nname = \"a\"\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\nvolume = \"b\"\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\nonly = []\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\nunchanged = \"warning\"\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\nexclude = [\"[a\"]\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\nnot_older_than = \"db\"\n",
            "[[source]]\nname = \"d\"\nkind = \"postgresql\"\ncontainer = \"c\"\nport = 5432\n",
            "[node]\ndatabase = \"db\"\n",
            "[[source]]\nname = \"a\"\nkind = \"tree\"\npath = \"/a\"\n[node]\ndatabase = \"a\"\n",
        ],
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    let mut session = Session::new("config_files");
    session.run("--config none.toml snapshots");
    std::fs::create_dir(session.path("directory.toml")).expect("a directory");
    session.run("--config directory.toml snapshots");
    session.file("large.toml", &"#".repeat((1 << 20) + 1));
    session.run("--config large.toml snapshots");
    std::fs::write(session.path("latin.toml"), b"host = \"\xe4\"\n").expect("a file");
    session.run("--config latin.toml snapshots");
    session.finish();
}

#[test]
fn the_sources_of_the_configuration_are_captured_in_order() {
    let mut session = Session::with_tree("config_sources");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\n\
         [backup]\ntags = [\"nightly\"]\n\
         [retention]\nkeep_last = 1\n\
         [[source]]\nname = \"db\"\nkind = \"command\"\ncommand = \"echo rows\"\n\
         [[source]]\nname = \"data\"\nkind = \"tree\"\npath = \"data\"\nexclude = [\"large\"]\n",
    );
    session.run("backup");
    session.run("snapshots");
    session.run("ls latest -R");
    session.say("one source alone");
    session.run("backup --source data");
    session.run("backup --source web");
    session.run("backup --exclude small");
    session.say("the policy of the configuration");
    session.run("forget --dry-run");
    session.finish();
}

#[test]
fn hooks_run_around_a_backup() {
    let mut session = Session::with_tree("hooks");
    session.say("a hook before the backup fails");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\n[hooks]\nbefore = [\"false\"]\non_failure = [\"touch failed\"]\n",
    );
    session.run("backup data");
    assert!(session.path("failed").exists(), "on_failure did not run");
    session.say("a hook after the backup fails");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\n[hooks]\nafter = [\"false\"]\n",
    );
    session.run("backup data");
    session.say("a hook that does not exist");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\n[hooks]\nbefore = [\"./no-such-hook\"]\n",
    );
    session.run("backup data");
    session.finish();
}
