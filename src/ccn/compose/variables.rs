//! Variables in compose files and in `.env` files, with the syntax of compose.

use std::collections::BTreeMap;

/// Upper limit of the text of one value, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Upper limit of the text of all values of a project, in bytes.
const ALL_BYTES_MAX: usize = 16 << 20;
/// Upper limit of nested defaults: `${A:-${B:-…}}`.
const DEPTH_MAX: usize = 16;

/// Names and values of a `.env` file. A name without a value takes it from the environment.
pub(super) type Lines = Vec<(String, Option<String>)>;

/// The values of variables. The environment takes precedence over the `.env` file.
#[derive(Default)]
pub(super) struct ComposeVariables<'a> {
    environment: BTreeMap<&'a str, &'a str>,
    file: BTreeMap<String, String>,
    /// Values of the previous lines, while a file is read.
    earlier: BTreeMap<String, String>,
    /// Names of variables that were used and are not set.
    pub unset: Vec<String>,
    bytes: usize,
}

impl<'a> ComposeVariables<'a> {
    pub fn new(environment: &'a BTreeMap<String, String>) -> Self {
        let environment = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Self {
            environment,
            ..Self::default()
        }
    }

    /// Adds the variables of a `.env` file. The environment takes precedence.
    pub fn add_file(&mut self, lines: Lines) {
        self.file.extend(
            lines
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let given = self.environment.get(name).copied();
        let file = || self.earlier.get(name).or_else(|| self.file.get(name));
        given.or_else(|| file().map(String::as_str))
    }

    /// Substitutes the variables in a text.
    ///
    /// # Errors
    /// Returns the reason, as a sentence.
    pub fn fill(&mut self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let rest = self.fill_until(text, &mut out, false, 0)?;
        debug_assert!(rest.is_empty(), "the text is read to its end");
        self.bytes += out.len();
        if self.bytes > ALL_BYTES_MAX {
            return Err("variables expand to too much text".into());
        }
        Ok(out)
    }

    /// Substitutes variables up to the end, or up to the brace that closes a default. Returns the
    /// rest of the text after it.
    fn fill_until<'t>(
        &mut self,
        mut text: &'t str,
        out: &mut String,
        braced: bool,
        depth: usize,
    ) -> Result<&'t str, String> {
        if depth > DEPTH_MAX {
            return Err("defaults are nested too deeply".into());
        }
        loop {
            let stop = text
                .find(|c| c == '$' || (braced && c == '}'))
                .unwrap_or(text.len());
            out.push_str(&text[..stop]);
            if out.len() > TEXT_BYTES_MAX {
                return Err("variables expand to too much text".into());
            }
            let Some(rest) = text[stop..].strip_prefix('$') else {
                return match text[stop..].strip_prefix('}') {
                    Some(behind) => Ok(behind),
                    None if braced => Err("a '${' has no '}'".into()),
                    None => Ok(""),
                };
            };
            text = if let Some(behind) = rest.strip_prefix('$') {
                out.push('$');
                behind
            } else if let Some(inside) = rest.strip_prefix('{') {
                self.braced(inside, out, depth)?
            } else {
                let (name, behind) = split_name(rest);
                if name.is_empty() {
                    return Err(
                        "a '$' without a variable's name; write '$$' for a dollar sign".into(),
                    );
                }
                let value = self.value(name);
                out.push_str(&value);
                behind
            };
        }
    }

    /// Substitutes `${…}`. Returns the rest of the text after its closing brace.
    fn braced<'t>(
        &mut self,
        inside: &'t str,
        out: &mut String,
        depth: usize,
    ) -> Result<&'t str, String> {
        let (name, rest) = split_name(inside);
        if name.is_empty() {
            return Err("'${' without a variable's name; write '$$' for a dollar sign".into());
        }
        if let Some(behind) = rest.strip_prefix('}') {
            let value = self.value(name);
            out.push_str(&value);
            return Ok(behind);
        }

        let (colon, rest) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };

        let mut chars = rest.chars();
        let operator = chars.next().filter(|c| matches!(c, '-' | '?' | '+'));
        let Some(operator) = operator else {
            return Err(format!(
                "'${{{name}' is followed by neither '}}' nor a default"
            ));
        };

        let value = self
            .get(name)
            .filter(|value| !(colon && value.is_empty()))
            .map(str::to_owned);

        let mut word = String::new();
        // An unused default may refer to variables that are not set: forget them then.
        let unset = self.unset.len();
        let behind = self.fill_until(chars.as_str(), &mut word, true, depth + 1)?;

        match (operator, value) {
            ('-' | '?', Some(value)) => {
                self.unset.truncate(unset);
                out.push_str(&value);
            }
            ('-', None) | ('+', Some(_)) => out.push_str(&word),
            ('+', None) => self.unset.truncate(unset),
            _ if word.is_empty() => return Err(format!("the variable {name} must be set")),
            _ => return Err(format!("the variable {name} must be set: {word}")),
        }
        Ok(behind)
    }

    fn value(&mut self, name: &str) -> String {
        match self.get(name) {
            Some(value) => value.to_owned(),
            None => {
                if !self.unset.iter().any(|known| known == name) {
                    self.unset.push(name.to_owned());
                }
                String::new()
            }
        }
    }

    /// Reads the lines of a `.env` file: names with or without values.
    ///
    /// # Errors
    /// Returns the line number and the reason.
    pub fn read_file(&mut self, text: &str) -> Result<Lines, (usize, String)> {
        self.earlier.clear();
        let lines = self.file_lines(text);
        self.earlier.clear();
        lines
    }

    fn file_lines(&mut self, text: &str) -> Result<Lines, (usize, String)> {
        let mut lines = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rest = text;
        let mut line = 1;
        let mut counted = 0;
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return Ok(lines);
            }

            let at = text.len() - rest.len();

            // Count lines up to the current one. A quoted value may span several.
            line += text[counted..at].matches('\n').count();
            counted = at;
            let here = |why: String| (line, why);

            let (first, behind) = rest.split_once('\n').unwrap_or((rest, ""));
            if first.starts_with('#') {
                rest = behind;
                continue;
            }

            let first = first.strip_prefix("export ").unwrap_or(first);
            let Some((name, _)) = first.split_once('=') else {
                let name = first.split('#').next().unwrap_or_default().trim();
                lines.push((env_name(name).map_err(here)?, None));
                rest = behind;
                continue;
            };

            let value = rest.split_once('=').map_or("", |(_, value)| value);
            let (value, behind) = self.file_value(value).map_err(here)?;
            rest = behind;
            let name = env_name(name.trim()).map_err(here)?;
            // Later lines may refer to the value, unless the environment sets the variable.
            self.earlier.insert(name.clone(), value.clone());
            lines.push((name, Some(value)));
        }
    }

    /// Returns a value of a `.env` file, and the lines after it.
    fn file_value<'t>(&mut self, text: &'t str) -> Result<(String, &'t str), String> {
        let text = text.trim_start_matches([' ', '\t']);
        let after_line = |text: &'t str| text.split_once('\n').map_or("", |(_, behind)| behind);
        if let Some(inside) = text.strip_prefix('\'') {
            let (value, behind) = inside.split_once('\'').ok_or("a quote is not closed")?;
            return Ok((value.to_owned(), after_line(behind)));
        }
        if let Some(inside) = text.strip_prefix('"') {
            let (value, behind) = double_quoted(inside).ok_or("a quote is not closed")?;
            return Ok((self.fill_leniently(&value)?, after_line(behind)));
        }
        let (line, behind) = text.split_once('\n').unwrap_or((text, ""));
        let comment = line
            .find(" #")
            .or_else(|| line.find("\t#"))
            .or(line.starts_with('#').then_some(0));
        let value = line[..comment.unwrap_or(line.len())].trim();
        Ok((self.fill_leniently(value)?, behind))
    }

    /// Substitutes variables in a value of a `.env` file. Versions of compose differ in the syntax
    /// that they accept here, so a value with invalid syntax is left as it is.
    fn fill_leniently(&mut self, value: &str) -> Result<String, String> {
        let filled = self.fill(value).unwrap_or_else(|_| value.to_owned());
        self.bytes += filled.len();
        if self.bytes > ALL_BYTES_MAX || filled.len() > TEXT_BYTES_MAX {
            return Err("the value is too long".into());
        }
        Ok(filled)
    }
}

/// Returns the text of a double-quoted value, and the rest after the closing quote. `\$` becomes
/// `$$`.
fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                '$' => out.push_str("$$"),
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

fn env_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(good) {
        // The text may be a password, so the message does not repeat it.
        return Err("this is not NAME=VALUE".into());
    }
    Ok(name.to_owned())
}

/// Splits a text into the variable's name at its beginning, which may be empty, and the rest.
fn split_name(text: &str) -> (&str, &str) {
    let begins = text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
    let end = text
        .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    text.split_at(if begins { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> BTreeMap<String, String> {
        [("A", "one"), ("EMPTY", ""), ("B", "two")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    fn fill(text: &str) -> Result<String, String> {
        ComposeVariables::new(&environment()).fill(text)
    }

    fn filled(text: &str) -> String {
        fill(text).expect("filled")
    }

    #[test]
    fn variables_are_put_in_as_compose_does() {
        assert_eq!(filled("x$A-${B}y$$A"), "xone-twoy$A");
        assert_eq!(
            filled("${EMPTY:-d}|${EMPTY-d}|${NO:-d}|${NO-d}|${A:-d}"),
            "d||d|d|one"
        );
        assert_eq!(filled("${A:+x}|${EMPTY:+x}|${EMPTY+x}|${NO+x}"), "x||x|");
        assert_eq!(filled("${NO:-${NO2:-${A}}}/${NO:-a$$b}"), "one/a$b");
        assert_eq!(filled("${A:?must}${EMPTY?must}"), "one");
        assert_eq!(filled("{}}"), "{}}");
        assert_eq!(
            fill("${EMPTY:?give one}").expect_err("unset"),
            "the variable EMPTY must be set: give one"
        );
        assert_eq!(
            fill("${NO?}").expect_err("unset"),
            "the variable NO must be set"
        );
        for bad in [
            "$", "$1", "${", "${}", "${A", "${A:-x", "${A!x}", "a$-", "${1}",
        ] {
            fill(bad).expect_err(bad);
        }
    }

    #[test]
    fn names_that_stand_for_nothing_are_known() {
        let environment = environment();
        let mut variables = ComposeVariables::new(&environment);
        assert_eq!(
            variables
                .fill("$NO$NO${OTHER}${A:-$UNUSED}${NO:+$UNUSED}")
                .expect("filled"),
            "one"
        );
        assert_eq!(variables.unset, ["NO", "OTHER"]);
    }

    #[test]
    fn a_little_text_does_not_become_much() {
        let mut environment = environment();
        environment.insert("LONG".into(), "x".repeat(60_000));
        let mut variables = ComposeVariables::new(&environment);
        variables
            .fill("$LONG$LONG$LONG$LONG")
            .expect_err("too long");
        let much = (0..1000).find(|_| variables.fill("$LONG").is_err());
        assert!(much.is_some_and(|n| n > 100));
        let nested = format!("{}x{}", "${NO:-".repeat(1000), "}".repeat(1000));
        fill(&nested).expect_err("too deep");
        let doubling: String = (1..40)
            .map(|n| format!("V{n}=${{V{0}}}${{V{0}}}\n", n - 1))
            .collect();
        let environment = BTreeMap::new();
        let mut variables = ComposeVariables::new(&environment);
        // Values that exceed the limit keep their variables.
        let lines = variables
            .read_file(&format!("V0=12345678\n{doubling}"))
            .expect("read");
        assert!(
            lines
                .iter()
                .all(|(_, value)| value.as_ref().is_some_and(|v| v.len() <= TEXT_BYTES_MAX))
        );
    }

    #[test]
    fn env_files_are_read() {
        let environment = environment();
        let mut variables = ComposeVariables::new(&environment);
        let text = "\u{feff}# c\n\nX=1\nexport Y = two words # c\nZ='$A #'\nW=\"a\\n\\\"$A\\$A\nb\" # c\nALONE\nE=\nU=$X$A\nQ=p#q\n C = x\r\nD=$1 $\n";
        let lines = variables.read_file(text).expect("read");
        let get = |name: &str| {
            lines
                .iter()
                .find(|(known, _)| known == name)
                .expect(name)
                .1
                .clone()
        };

        let is = |name: &str, value: &str| assert_eq!(get(name).as_deref(), Some(value), "{name}");
        is("X", "1");
        is("Y", "two words");
        is("Z", "$A #");
        is("W", "a\n\"one$A\nb");
        assert_eq!(get("ALONE"), None);

        is("E", "");
        is("U", "1one");
        is("Q", "p#q");
        is("C", "x");
        is("D", "$1 $");
        assert_eq!(
            variables.read_file("A=1\nno name=2\n").expect_err("bad").0,
            2
        );
        assert_eq!(variables.read_file("A=1\nB='2\n").expect_err("bad").0, 2);
    }

    #[test]
    fn the_environment_comes_before_the_file() {
        let environment = environment();
        let mut variables = ComposeVariables::new(&environment);
        let lines = variables.read_file("A=file\nNEW=file\n").expect("read");
        variables.add_file(lines);
        assert_eq!(variables.fill("$A $NEW").expect("filled"), "one file");
    }
}
