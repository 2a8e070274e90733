//! An identifier in a statement of a dump.

/// An identifier in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqlName<'a> {
    /// As spelled in the statement, with its quotes.
    pub spelled: &'a [u8],
}

impl<'a> SqlName<'a> {
    /// Parses a text that is exactly one name.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        Self::first(text)
            .filter(|(_, rest)| rest.is_empty())
            .map(|(name, _)| name)
    }

    /// Returns the name at the beginning of a text, and the rest of the text.
    pub fn first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = if text.first() == Some(&b'"') {
            let mut at = 1;
            loop {
                at += text.get(at..)?.iter().position(|&byte| byte == b'"')? + 1;
                if text.get(at) != Some(&b'"') {
                    break at;
                }
                at += 1;
            }
        } else {
            let is_word = |byte: &u8| {
                byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'$' || *byte >= 0x80
            };
            text.iter().take_while(|byte| is_word(byte)).count()
        };
        let (spelled, rest) = text.split_at(len);
        (!spelled.is_empty()).then_some((Self { spelled }, rest))
    }

    /// Returns true if the identifier refers to this name.
    pub fn is(&self, name: &[u8]) -> bool {
        self.plain() == name
    }

    /// Returns the name without quotes, in lower case if it is not quoted.
    pub fn plain(&self) -> Vec<u8> {
        let Some(inner) = self.spelled.strip_prefix(b"\"") else {
            return self.spelled.to_ascii_lowercase();
        };
        let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
        let mut out = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(&byte) = bytes.next() {
            out.push(byte);
            if byte == b'"' {
                bytes.next();
            }
        }
        out
    }
}
