//! `icecore config show`: the settings in effect and their origins.

use super::environment::Session;

/// A configuration with every kind of source and without a secret.
const SETTINGS: &str = r#"
host = "alpha"
repository = "repo"
repository_id = "0123456789abcdef0123456789abcdef"
passphrase_file = "passphrase"
[backup]
tags = ["nightly", "a"]
level = 7
memory = "1536MiB"
checkpoint_every = "90s"
[retention]
keep_last = 0
keep_daily = 14
keep_monthly = "all"
keep_within = "36h"
[prune]
max_repack = "1000"
[verify]
sample = "7%"
read_data = false
[hooks]
before = ["mysql -psecret-word", "sh -c 'a b'"]
[node]
database = "db"
local_storage = "storage"
[[source]]
name = "db"
kind = "postgresql"
container = "postgres-1"
[[source]]
name = "storage"
kind = "tree"
path = "storage"
not_older_than = "db"
exclude = ["*.tmp"]
only = ["b/", "a"]
[[source]]
name = "rows"
kind = "command"
command = "env PGPASSWORD=secret-word pg_dumpall"
chunk = "2KiB"
after = "true"
"#;

#[test]
fn the_settings_in_effect_are_shown_with_their_origins() {
    let mut session = Session::new("config_show");
    session.file("icecore.toml", SETTINGS);
    let plain = |session: &mut Session, line: &str| {
        let call = session.call(line).without("ICECORE_REPO");
        let call = call.without("ICECORE_NO_PASSPHRASE");
        assert_eq!(call.run().code, 0);
    };
    plain(&mut session, "config show");
    plain(&mut session, "config show --json");

    session.say("options and variables replace settings of the file");
    session.run("config show");
    session.run("-r other --passphrase-command 'echo secret-word' config show --json");
    let ran = session.call("config show").passphrase("secret-word").run();
    assert_eq!(ran.code, 0);

    session.say("a mistake");
    session.file("icecore.toml", "[backup]\nlevel = 20\n");
    assert_eq!(session.run("config show").code, 2);
    session.run("config show --json");
    session.run("--config none.toml config show");
    session.finish();
}

#[test]
fn no_secret_is_shown() {
    let mut session = Session::new(super::environment::NO_SNAPSHOT);
    let text = SETTINGS.replace("passphrase_file = \"passphrase\"", "");
    session.file(
        "icecore.toml",
        &format!("passphrase_command = \"echo secret-word\"\n{text}"),
    );
    for line in [
        "config show",
        "config show --json",
        "-r sftp://user:secret-word@host/repo config show",
        "--passphrase-command 'printf secret-word' config show",
    ] {
        let ran = session.call(line).without("ICECORE_NO_PASSPHRASE").play();
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        assert!(
            !ran.stdout.contains("secret-word"),
            "{line}: {}",
            ran.stdout
        );
        let ran = session.call(line).passphrase("secret-word").play();
        assert!(
            !ran.stdout.contains("secret-word"),
            "{line}: {}",
            ran.stdout
        );
    }
}

#[test]
fn without_a_file_the_defaults_are_shown() {
    let mut session = Session::new(super::environment::NO_SNAPSHOT);
    let ran = session
        .call("config show --json")
        .without("ICECORE_CONFIG")
        .play();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let record: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one record");
    assert_eq!(record["type"], "config");
    assert_eq!(record["sources"], serde_json::json!([]));
    let settings = record["settings"].as_array().expect("a list");
    let level = settings
        .iter()
        .find(|one| one["key"] == "backup.level")
        .expect("a level");
    assert_eq!(level["value"], 3);
    assert_eq!(level["origin"], "default");
}
