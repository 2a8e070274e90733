//! Parsing the location of a store as written by a user: a path, `sftp://user@host/path`,
//! `user@host:/path`, `s3://bucket/prefix`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The location of a store. Displays in one canonical spelling that [`StoreLocation::parse`] accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreLocation {
    /// A directory of this machine.
    Local(PathBuf),
    /// A directory of a host accessed by SSH.
    Sftp {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// Absolute and not decoded: `%20` is three characters.
        path: String,
    },
    /// A part of a bucket; the prefix has no slash at either end and may be empty.
    S3 { bucket: String, prefix: String },
}

/// Reason why a text is not a location. Messages never repeat a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocateError {
    /// The text is empty.
    Empty,
    /// `scheme://` with an unknown scheme.
    Scheme { scheme: String },
    /// A malformed location of this scheme; `why` is the reason.
    Malformed {
        scheme: &'static str,
        why: &'static str,
    },
    /// `scheme:` as in the remote repositories of other programs.
    OtherProgram { scheme: &'static str },
    /// `file:///path`; local paths are written without a scheme.
    FileUrl,
    /// A remote address must be UTF-8.
    NotText,
}

/// Prefixes before `:` that other backup programs use for their back ends.
const OTHER_PROGRAMS: [&str; 7] = ["azure", "b2", "gs", "rclone", "rest", "swift", "webdav"];

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the repository's location is empty"),
            Self::Scheme { scheme } => {
                write!(
                    f,
                    "'{scheme}://' is not supported; a location is a path, sftp://user@host/path, "
                )?;
                f.write_str("user@host:/path or s3://bucket/prefix")
            }
            Self::Malformed { scheme, why } => write!(f, "invalid {scheme} location: {why}"),
            Self::OtherProgram { scheme } => write!(
                f,
                "'{scheme}:' is not supported; a location is a path, and a path with a ':' is written './{scheme}:…'"
            ),
            Self::FileUrl => f.write_str(
                "'file://' is not part of a path: write the path alone, such as /srv/repo",
            ),
            Self::NotText => f.write_str("a remote location must be UTF-8"),
        }
    }
}

impl std::error::Error for LocateError {}

impl StoreLocation {
    /// Parses a location.
    ///
    /// A text that begins with `/` or `.` is a path. Otherwise the text before `://` is a scheme.
    /// Otherwise a `:` before the first `/` makes it `host:/path`, unless a file of that name
    /// exists here. Any other text is a path.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, LocateError> {
        let text = text.as_ref();
        let bytes = text.as_bytes();
        let local = || Ok(Self::Local(PathBuf::from(text)));
        let colon = match bytes {
            [] => return Err(LocateError::Empty),
            [b'/' | b'.', ..] => return local(),
            _ => match bytes.iter().position(|b| matches!(b, b':' | b'/')) {
                Some(at) if bytes[at] == b':' => at,
                _ => return local(),
            },
        };

        let is_scheme = bytes[colon..].starts_with(b"://");
        if !is_scheme && std::path::Path::new(text).symlink_metadata().is_ok() {
            return local();
        }

        let text = text.to_str().ok_or(LocateError::NotText)?;
        let (before, after) = text.split_at(colon);

        // Other programs write locations as `scheme:`, not followed by a slash.
        if !after.starts_with(":/") {
            match before {
                "sftp" => return Err(bad_sftp("write sftp://user@host/path")),
                "s3" => {
                    return Err(LocateError::Malformed {
                        scheme: "s3",
                        why: "write s3://bucket/prefix",
                    });
                }
                _ => {}
            }
            if let Some(scheme) = OTHER_PROGRAMS.into_iter().find(|scheme| *scheme == before) {
                return Err(LocateError::OtherProgram { scheme });
            }
        }

        if !is_scheme {
            return sftp(before, None, &after[1..]);
        }

        let rest = &after[3..];
        match before {
            "sftp" => {
                let slash = rest
                    .find('/')
                    .ok_or(bad_sftp("a path must follow the host"))?;
                let (authority, path) = rest.split_at(slash);
                let (authority, port) = split_port(authority)?;
                sftp(authority, port, path)
            }
            "s3" => s3(rest),
            "file" => Err(LocateError::FileUrl),
            // The text may be anything, including a secret, so show only what has the form of a
            // scheme.
            scheme
                if scheme.len() <= 16
                    && scheme
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'+') =>
            {
                Err(LocateError::Scheme {
                    scheme: scheme.to_owned(),
                })
            }
            _ => Err(LocateError::Scheme {
                scheme: "…".to_owned(),
            }),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Sftp {
                user,
                host,
                port,
                path,
            } => {
                f.write_str("sftp://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                f.write_str(host)?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(path)
            }
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

const fn bad_sftp(why: &'static str) -> LocateError {
    LocateError::Malformed {
        scheme: "sftp",
        why,
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), LocateError> {
    // Colons of an IPv6 address are in brackets, those of a password before the '@'.
    let host_from = authority.rfind(['@', ']']).map_or(0, |at| at + 1);
    let Some(colon) = authority[host_from..].find(':').map(|at| host_from + at) else {
        return Ok((authority, None));
    };
    let port = authority[colon + 1..]
        .parse()
        .ok()
        .filter(|port| *port != 0);
    Ok((
        &authority[..colon],
        Some(port.ok_or(bad_sftp("the port is not a number from 1 to 65535"))?),
    ))
}

fn sftp(authority: &str, port: Option<u16>, path: &str) -> Result<StoreLocation, LocateError> {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };

    if user.is_some_and(|user| user.contains(':')) {
        return Err(bad_sftp(
            "it must not contain a password; use an SSH key or agent",
        ));
    }
    // These become arguments of `ssh`: they must not look like an option or contain a space.
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c))
    };
    if !user.is_none_or(|user| plain(user, "+@")) {
        return Err(bad_sftp("the user name is empty or has invalid characters"));
    }

    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if !bare.map_or(plain(host, ""), |address| plain(address, ":%")) {
        return Err(bad_sftp("the host name is empty or has invalid characters"));
    }

    if !path.starts_with('/') {
        return Err(bad_sftp(
            "the path must begin with '/'; a local path with a ':' is written './…'",
        ));
    }
    if path.trim_matches('/').is_empty() || path.contains(char::is_control) {
        return Err(bad_sftp("the path is empty or holds control characters"));
    }

    Ok(StoreLocation::Sftp {
        user: user.map(str::to_owned),
        host: host.to_ascii_lowercase(),
        port,
        path: path.trim_end_matches('/').to_owned(),
    })
}

fn s3(rest: &str) -> Result<StoreLocation, LocateError> {
    let bad = |why| LocateError::Malformed { scheme: "s3", why };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    if !(3..=63).contains(&bucket.len())
        || !bucket.bytes().all(legal)
        || bucket.starts_with(['.', '-'])
    {
        return Err(bad("a bucket's name has 3 to 63 of a-z, 0-9, '.' and '-'"));
    }
    let prefix = prefix.trim_matches('/');
    if !prefix.is_empty()
        && prefix
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(bad("a part of the prefix is empty, '.' or '..'"));
    }
    if prefix.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err(bad("the prefix holds '?', '#' or control characters"));
    }
    Ok(StoreLocation::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreLocation, LocateError> {
        StoreLocation::parse(text)
    }

    #[test]
    fn paths_are_parsed_as_local_locations() {
        for text in [
            "/srv/repo",
            "./a:b",
            "../x",
            ".",
            "repo",
            "a/b:c",
            "/odd:/name",
            "~",
            "@x",
        ] {
            assert_eq!(parse(text), Ok(StoreLocation::Local(text.into())), "{text}");
        }
        let odd = OsStr::from_bytes(b"caf\xe9");
        assert_eq!(
            StoreLocation::parse(odd),
            Ok(StoreLocation::Local(odd.into()))
        );
        assert_eq!(parse(""), Err(LocateError::Empty));
    }

    #[test]
    fn a_name_with_a_colon_that_exists_is_a_path() {
        let odd = format!("target-locate-{}:x", std::process::id());
        assert!(matches!(parse(&odd), Err(LocateError::Malformed { .. })));
        std::fs::create_dir(&odd).expect("create");
        let found = parse(&odd);
        std::fs::remove_dir(&odd).expect("remove");
        assert_eq!(found, Ok(StoreLocation::Local(odd.into())));
    }

    #[test]
    fn remote_locations_print_in_one_spelling() {
        for (text, canonical) in [
            ("sftp://me@host/srv/repo", "sftp://me@host/srv/repo"),
            ("me@Host:/srv/repo/", "sftp://me@host/srv/repo"),
            ("host:/srv", "sftp://host/srv"),
            ("sftp://host:2222/srv", "sftp://host:2222/srv"),
            ("sftp://me@[fe80::1]:22/srv", "sftp://me@[fe80::1]:22/srv"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://bucket", "s3://bucket"),
        ] {
            let location = parse(text).expect(text);
            assert_eq!(location.to_string(), canonical);
            assert_eq!(parse(canonical), Ok(location), "{canonical}");
        }
    }

    #[test]
    fn malformed_locations_are_refused() {
        for text in [
            "sftp://host",
            "sftp:///path",
            "sftp://host/",
            "sftp://host:0/p",
            "sftp://host:99999/p",
            "sftp://-oProxyCommand=x/p",
            "-oProxyCommand=x:/p",
            "me@host:relative",
            "s3://B/x",
            "s3://bucket/a/../b",
            "s3://bucket/x?versionId=1",
            "http://host/x",
            "://x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse("sftp://me:hunter2@host/p").expect_err("a password");
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("password"));
    }

    #[test]
    fn syntax_of_other_programs_gets_a_hint() {
        for (text, right) in [
            (
                "rest:https://me:hunter2@host:8000/",
                "'rest:' is not supported",
            ),
            ("rclone:remote:path", "'rclone:' is not supported"),
            ("b2:bucket:path", "'b2:' is not supported"),
            ("sftp:me@host:/srv", "write sftp://user@host/path"),
            ("s3:s3.example.org/bucket", "write s3://bucket/prefix"),
            ("file:///srv/repo", "write the path alone"),
        ] {
            let message = parse(text).expect_err(text).to_string();
            assert!(
                message.contains(right) && !message.contains("hunter2"),
                "{text}: {message}"
            );
        }
        assert_eq!(
            parse("rest:/srv").map(|it| it.to_string()),
            Ok("sftp://rest/srv".to_owned()),
            "a host"
        );
    }
}
