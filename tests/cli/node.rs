//! The commands about nodes, as far as they go without Docker and PostgreSQL.

use super::environment::Session;

#[test]
fn a_node_that_is_not_there_is_reported() {
    // The directory of a compose file names the project.
    let mut session = Session::with_snapshot("node");
    std::fs::create_dir(session.path("bin")).expect("a directory");
    let path = session.path("bin").to_str().expect("UTF-8").to_owned();
    let run = |session: &mut Session, line: &str| {
        session.call(line).with("PATH", &path).run();
    };
    run(&mut session, "node backup");
    run(&mut session, "node check");
    run(&mut session, "node check --live");
    run(&mut session, "node restore latest");
    run(&mut session, "node restore latest:data --dry-run");
    run(&mut session, "node init none.yml --output new.toml");
    run(&mut session, "node init data --output new.toml");
    session.file("web/compose.yml", "services: [\n");
    run(&mut session, "node init web/compose.yml --output new.toml");
    session.file("web/compose.yml", "services:\n  web:\n    image: nginx\n");
    run(&mut session, "node init web/compose.yml --output new.toml");
    run(&mut session, "node init web/compose.yml");
    session.finish();
}
