//! Tests of which secrets in a command are masked, and that other text is left unchanged.

use super::*;

/// Each way to pass a secret, bare and inside a script, with several kinds of secrets.
#[test]
fn no_way_to_give_a_secret_shows_it() {
    let ways: [&[&str]; 71] = [
        &["env", "PGPASSWORD=@", "x"],
        &["env", "DB_PASSWD=@", "x"],
        &["env", "MYSQL_PWD=@", "x"],
        &["env", "RESTIC_PASSWORD=@", "x"],
        &["env", "AWS_SECRET_ACCESS_KEY=@", "x"],
        &["env", "GITHUB_TOKEN=@", "x"],
        &["x", "--password", "@"],
        &["x", "--password=@"],
        &["x", "-password", "@"],
        &["x", "--pass", "@"],
        &["x", "--pass=@"],
        &["x", "--api-key", "@"],
        &["x", "--client-secret", "@"],
        &["mysqldump", "-uroot", "-p@"],
        &["mariadb-dump", "--password=@"],
        &["sshpass", "-p", "@"],
        &["sshpass", "-p@"],
        &["mongodump", "-u", "a", "-p", "@"],
        &["redis-cli", "-a", "@"],
        &["ldapsearch", "-w", "@"],
        &["sqlcmd", "-P", "@"],
        &["7z", "a", "-p@"],
        &["zip", "-P", "@"],
        &["curl", "-u", "a:@"],
        &["curl", "--user", "a:@"],
        &["curl", "-H", "Authorization: Basic @"],
        &["curl", "--header=X-Auth-Token: @"],
        &["lftp", "-u", "a,@"],
        &["smbclient", "-U", "a%@"],
        &["psql", "postgresql://a:@@h/d"],
        &["psql", "postgresql:///d?user=u&password=@"],
        &["psql", "postgresql://h/d?password=@&user=u"],
        &["psql", "host=h password = @"],
        &["psql", "host=h password= @"],
        &["psql", "host=h password =@"],
        &["x", "jdbc:postgresql://h/d?user=u&password=@"],
        &["curl", "https://h/d?api_key=@"],
        &["curl", "https://h/d?x=1&key=@"],
        &["curl", "h:80/d?x=1&sig=@"],
        &["curl", "https://h/d?X-Amz-Signature=@"],
        &["curl", "https://h/d#access_token=@"],
        &["curl", "--url=https://h/d?token=@"],
        &["curl", "-b", "session=@", "https://h"],
        &["curl", "--cookie=a=1; b=@"],
        &["curl", "--cookie", "a=1; b=@"],
        &["curl", "--oauth2-bearer", "@"],
        &["curl", "-E", "c.pem:@"],
        &["curl", "-x", "u:@@h:3128", "https://h"],
        &["rclone", "cat", "--sftp-pass", "@", "r:x"],
        &["rclone", "cat", ":sftp,host=h,pass=@:x"],
        &["env", "RCLONE_CONFIG_R_PASS=@", "x"],
        &["env", "AZURE_STORAGE_KEY=@", "x"],
        &["env", "DBPASS=@", "x"],
        &["x", "--account-key", "@"],
        &["x", "--webhook-secret=@"],
        &["x", "-storepass", "@"],
        &["influx", "backup", "-t", "@", "-"],
        &["openssl", "enc", "-aes-256-cbc", "-k", "@"],
        &["openssl", "enc", "-K", "@", "-iv", "00"],
        &["openssl", "rsa", "-passin", "pass:@"],
        &["docker", "run", "-e", "POSTGRES_PASSWORD=@", "pg"],
        &["docker", "login", "-u", "u", "-p", "@", "h"],
        &["aws", "configure", "set", "aws_secret_access_key", "@"],
        &["sqlplus", "-S", "scott/@@db"],
        &["expdp", "scott/@"],
        &["rman", "target=sys/@@db"],
        &["etcdctl", "--user", "root:@"],
        &["smbclient", "-UD\\a%@", "//h/s"],
        &["mariabackup", "-p@"],
        &["rar", "a", "-hp@"],
        &["curl", "-H", "X-Auth-Key: @", "https://h"],
    ];
    let secrets = [
        "hunter2", "p4$$", "x=y", "a/b", "-dash", "q\"uote", "äö", "123",
    ];

    for way in ways {
        for secret in secrets {
            // A password in a URL has its slashes escaped.
            if way.iter().any(|word| word.contains("@@")) && secret.contains('/') {
                continue;
            }
            let fill = |word: &&str| word.replacen('@', &format!("Qz{secret}Zq"), 1);
            let words: Vec<String> = way.iter().map(fill).collect();
            let script = vec!["sh".to_owned(), "-c".to_owned(), shell_words::join(&words)];
            for words in [words, script] {
                let all = format!("{} {}", shown(&words), masked(&words).concat());
                assert!(
                    !all.contains("Qz") && !all.contains("Zq"),
                    "{words:?}: {all}"
                );
            }
        }
    }
}

/// A secret of several words can be one word of a command.
#[test]
fn blanks_do_not_end_a_secret() {
    for words in [
        &["x", "--password", "@ @ @"][..],
        &["x", "--password=@ @", "y"],
        &["env", "PGPASSWORD=@ @; @", "x"],
        &["curl", "-u", "me:@ @", "https://h"],
        &["sshpass", "-p@ @", "ssh", "h"],
        &["sh", "-c", "PGPASSWORD='@ @' x"],
        &["ssh", "h", "PGPASSWORD='@ @' x"],
    ] {
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace('@', "hunter2"))
            .collect();
        let text = shown(&words);
        assert!(!text.contains("hunter2") && text.contains(MASK), "{text}");
    }
}

#[test]
fn secrets_are_masked_and_all_else_is_as_typed() {
    for (words, expected) in [
        (
            vec!["docker", "exec", "-e", "PGPASSWORD=hunter2", "pg"],
            "docker exec -e PGPASSWORD=*** pg",
        ),
        (
            vec!["x", "--token", "abc", "--token=abc", "y"],
            "x --token *** --token=*** y",
        ),
        (
            vec!["x", "--password-file", "/p", "--no-password", "y"],
            "x --password-file /p --no-password y",
        ),
        (
            vec!["psql", "postgres://u:p@h/db?a=b"],
            "psql 'postgres://u:***@h/db?a=b'",
        ),
        (
            vec!["bash", "-c", "SECRET=1 run; y"],
            "bash -c 'SECRET=*** run; y'",
        ),
        (vec!["a b", "é=1"], "'a b' é=1"),
        (
            vec![
                "docker",
                "exec",
                "db",
                "mysqldump",
                "-uroot",
                "-phunter2",
                "-P3306",
                "-p",
                "all",
            ],
            "docker exec db mysqldump -uroot '-p***' -P3306 -p all",
        ),
        (
            vec!["/usr/bin/mariadb-dump", "-phunter2"],
            "/usr/bin/mariadb-dump '-p***'",
        ),
        (
            vec!["sh", "-c", "mysqldump '-phunter2' x"],
            r#"sh -c "mysqldump '-p*** x""#,
        ),
        (
            vec!["curl", "-u", "me:hunter2", "http://h/"],
            "curl -u 'me:***' http://h/",
        ),
        (
            vec!["curl", "-ume:hunter2", "--user=me:hunter2"],
            "curl '-ume:***' '--user=me:***'",
        ),
        (
            vec!["docker", "exec", "-u", "999:999", "pg"],
            "docker exec -u 999:999 pg",
        ),
        (
            vec!["curl", "-H", "Authorization: Bearer hunter2", "x"],
            "curl -H 'Authorization: ***' x",
        ),
        (
            vec!["sh", "-c", "curl -H 'X-Api-Key: hunter2' x"],
            r#"sh -c "curl -H 'X-Api-Key: *** x""#,
        ),
        (
            vec!["sh", "-c", "dump --password 'hunter2 is long' x"],
            "sh -c 'dump --password *** x'",
        ),
        (
            vec!["sh", "-c", "PGPASSWORD='hunter2 x' pg_dumpall"],
            "sh -c 'PGPASSWORD=*** pg_dumpall'",
        ),
        (
            vec!["sshpass", "-p", "hunter2", "ssh", "-p", "22", "h"],
            "sshpass -p *** ssh -p *** h",
        ),
        (
            vec!["redis-cli", "-a", "hunter2", "--rdb", "-"],
            "redis-cli -a *** --rdb -",
        ),
        (
            vec!["mongodump", "--uri", "mongodb://u:hunter2@h"],
            "mongodump --uri 'mongodb://u:***@h'",
        ),
        (
            vec!["psql", "host=h password=hunter2 dbname=d"],
            "psql 'host=h password=*** dbname=d'",
        ),
        (
            vec!["psql", "-c", "ALTER ROLE a PASSWORD 'hunter2'"],
            "psql -c 'ALTER ROLE a PASSWORD ***'",
        ),
        (
            vec!["x", "{\"user\":\"a\",\"password\":\"hunter2\"}"],
            r#"x '{"user":"a","password":***'"#,
        ),
        (
            vec!["openssl", "enc", "-pass", "pass:hunter2"],
            "openssl enc -pass ***",
        ),
        (
            vec!["x", "--password", "--verbose", "y"],
            "x --password --verbose y",
        ),
        (
            vec!["psql", "postgresql://h/d?password=hunter2&user=u"],
            "psql 'postgresql://h/d?password=***&user=u'",
        ),
        (
            vec!["psql", "host=h password = hunter2 dbname=d"],
            "psql 'host=h password = *** dbname=d'",
        ),
        (
            vec!["ssh", "h", "PGPASSWORD=hunter2 pg_dumpall"],
            "ssh h 'PGPASSWORD=*** pg_dumpall'",
        ),
        (
            vec!["sh", "-c", "PGPASSWORD= pg_dumpall -w"],
            "sh -c 'PGPASSWORD= pg_dumpall -w'",
        ),
        (
            vec!["curl", "-b", "jar.txt", "--cookie-jar", "j"],
            "curl -b jar.txt --cookie-jar ***",
        ),
        (
            vec!["curl", "https://h/d?page=2&size=3"],
            "curl 'https://h/d?page=2&size=3'",
        ),
        (
            vec![
                "openssl", "enc", "-kfile", "/k", "-k", "hunter2", "-in", "x",
            ],
            "openssl enc -kfile /k -k *** -in x",
        ),
        (
            vec!["docker", "run", "-p", "80:80", "pg:15@sha256:ab"],
            "docker run -p 80:80 pg:15@sha256:ab",
        ),
        (
            vec!["docker", "login", "--password-stdin", "h"],
            "docker login --password-stdin h",
        ),
        (
            vec!["sqlplus", "-S", "scott/hunter2@db", "@/q.sql"],
            "sqlplus -S 'scott/***@db' @/q.sql",
        ),
        (vec!["scp", "u@h:/p", "./a:b"], "scp u@h:/p ./a:b"),
        (
            vec!["x", "--bypass", "y", "--key", "/k", "--ssh-keys", "z"],
            "x --bypass y --key /k --ssh-keys z",
        ),
        (vec!["pg_dump", "-p5432", "-pall"], "pg_dump -p5432 -pall"),
        (
            vec![
                "env",
                "MYSQL_PWD=hunter2",
                "DB_PWD=hunter2",
                "PWD=/a",
                "OLDPWD=/b",
                "x",
            ],
            "env 'MYSQL_PWD=***' 'DB_PWD=***' PWD=/a OLDPWD=/b x",
        ),
    ] {
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let text = shown(&words);
        assert!(
            text == expected || shell_words::split(&text).ok() == shell_words::split(expected).ok(),
            "{text}"
        );
        assert!(!text.contains("hunter2"));
    }
}

/// Output like `could not connect to postgres://u:SECRET@h`, and secrets from the command's own
/// words.
#[test]
fn secrets_in_the_output_of_a_command_are_masked() {
    let words = ["dump", "--password=hunter2", "--host", "h"].map(str::to_owned);
    let text = "could not connect to postgres://u:other1@h/db\nthe password hunter2 was rejected\nPGPASSWORD=other2 x\n";
    let masked = masked_output(text, &words);
    assert!(
        !["hunter2", "other1", "other2"]
            .iter()
            .any(|secret| masked.contains(secret)),
        "{masked}"
    );
    assert_eq!(masked.lines().count(), 3, "{masked}");
    assert!(masked.contains("the password *** was rejected"), "{masked}");

    let plain = "FATAL:  password authentication failed for user \"aleph\"\ncurl: (7) Failed to connect to h port 80\n";
    assert_eq!(masked_output(plain, &words), plain);
}
