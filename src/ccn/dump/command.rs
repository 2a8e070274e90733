//! The commands of `psql` that a cluster's dump may contain. Other commands run programs (`\!`,
//! `\copy`, `\g |…`, and backticks in any command), so `pg_dumpall` did not write a line of another
//! form (CVE-2025-8714).

use super::name::SqlName;

/// A whole line that begins with a backslash where a statement could begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PsqlCommand<'a> {
    /// `psql` accepts no other command until the `\unrestrict` with the same key.
    Restrict(&'a [u8]),
    Unrestrict(&'a [u8]),
    /// Sets the encoding of database names.
    Encoding,
    /// Connects to a database of the same server, as the same user.
    Connect,
}

impl<'a> PsqlCommand<'a> {
    /// Parses a line with or without its line ending. Returns `None` unless the line has a form
    /// that `pg_dump` and `pg_dumpall` write.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(key) = line.strip_prefix(b"\\restrict ") {
            return is_key(key).then_some(Self::Restrict(key));
        }
        if let Some(key) = line.strip_prefix(b"\\unrestrict ") {
            return is_key(key).then_some(Self::Unrestrict(key));
        }
        if let Some(name) = line.strip_prefix(b"\\encoding ") {
            return (!name.is_empty() && is_plain_name(name)).then_some(Self::Encoding);
        }
        let database = line.strip_prefix(b"\\connect ")?;
        // A name with characters other than letters, digits, '_' and '.' is in a connection string
        // after `-reuse-previous=on`.
        let is_database = match database.strip_prefix(b"-reuse-previous=on ") {
            Some(quoted) => {
                quoted.starts_with(b"\"") && is_connection_string(&SqlName::parse(quoted)?.plain())
            }
            None => is_plain_name(&SqlName::parse(database)?.plain()),
        };
        is_database.then_some(Self::Connect)
    }
}

fn is_key(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_alphanumeric)
}

fn is_plain_name(name: &[u8]) -> bool {
    name.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// Returns true for exactly `dbname='…'`. A further word could name another server.
fn is_connection_string(text: &[u8]) -> bool {
    let Some(mut rest) = text.strip_prefix(b"dbname='") else {
        return false;
    };
    loop {
        match rest {
            [b'\\', _, behind @ ..] => rest = behind,
            [b'\''] => return true,
            [b'\'' | b'\\', ..] | [] => return false,
            [_, behind @ ..] => rest = behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_dumps_are_parsed() {
        let read = |line: &'static str| PsqlCommand::parse(line.as_bytes());
        assert_eq!(
            read("\\restrict aZ09\n"),
            Some(PsqlCommand::Restrict(b"aZ09"))
        );
        assert_eq!(
            read("\\unrestrict aZ09"),
            Some(PsqlCommand::Unrestrict(b"aZ09"))
        );
        assert_eq!(read("\\encoding SQL_ASCII\n"), Some(PsqlCommand::Encoding));
        for line in [
            "\\connect template1\n",
            "\\connect aleph\r\n",
            "\\connect \"Upper.case\"\n",
            "\\connect -reuse-previous=on \"dbname='dbname=postgres'\"\n",
            "\\connect -reuse-previous=on \"dbname='An Odd \"\"db\"\" it\\'s \\\\here é'\"\n",
            "\\connect -reuse-previous=on \"dbname='a`id`b | c'\"\n",
        ] {
            assert_eq!(read(line), Some(PsqlCommand::Connect), "{line}");
        }
    }

    #[test]
    fn other_commands_are_not_parsed() {
        for line in [
            "\\! id\n",
            "\\!id\n",
            "\\copy t to program 'id'\n",
            "\\g |id\n",
            "\\o |id\n",
            "\\i /etc/passwd\n",
            "\\set x `id`\n",
            "\\restrict\n",
            "\\restrict a b\n",
            "\\restrict `id`\n",
            "\\unrestrict a;\n",
            "\\encoding\n",
            "\\encoding `id`\n",
            "\\connect\n",
            "\\connect a b\n",
            "\\connect `id`\n",
            "\\connect a \\! id\n",
            "\\connect a\\! id\n",
            "\\connect \"host=evil\"\n",
            "\\connect postgres://evil/x\n",
            "\\connect 'a'\n",
            "\\connect :x\n",
            "\\connect -reuse-previous=on dbname=x\n",
            "\\connect -reuse-previous=on \"dbname='x' host=evil\"\n",
            "\\connect -reuse-previous=on \"dbname='x\\'\"\n",
            "\\connect -reuse-previous=on \"dbname='x'\" u\n",
            "\\connect -reuse-previous=off \"dbname='x'\"\n",
            "\\c a\n",
            "\\.\n",
            "\\\n",
            "connect a\n",
        ] {
            assert_eq!(PsqlCommand::parse(line.as_bytes()), None, "{line}");
        }
    }
}
