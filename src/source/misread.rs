//! Finds exclude patterns that look as if they follow another program's rules, and then exclude
//! nothing.
//!
//! They are legal and may be intended, so a backup only warns. Patterns that cannot be intended are
//! rejected elsewhere: see [`Filter::refuse_absolute`](super::Filter::refuse_absolute).

use super::pattern::shown;

/// Returns a warning if a pattern seems to follow other rules. `root` is the components of the
/// source's absolute path. `has_name` returns whether the source's root has a name.
pub(super) fn advice(
    pattern: &[u8],
    root: &[&[u8]],
    has_name: impl Fn(&[u8]) -> bool,
) -> Option<String> {
    let pattern = pattern.strip_prefix(b"!").unwrap_or(pattern);
    let first = pattern
        .split(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    if has_name(first) {
        return None;
    }

    for style in [b"sh:", b"re:", b"pp:", b"pf:", b"fm:"] {
        if pattern.starts_with(style) {
            return Some(format!(
                "'{}' is part of the name here; patterns follow gitignore's rules",
                shown(style)
            ));
        }
    }
    if first.starts_with(b"$") {
        return Some(
            "variables are not replaced here; patterns begin at the source's root".to_owned(),
        );
    }
    let rest = below_end_of(pattern, root)?;
    Some(format!(
        "it seems to begin with the path of the source; patterns begin at the source's root: write '/{}'",
        shown(rest)
    ))
}

/// Returns the rest of a pattern after its first components, if these are the last ones of `root`.
/// A leading wildcard stands for the components before them.
fn below_end_of<'p>(pattern: &'p [u8], root: &[&[u8]]) -> Option<&'p [u8]> {
    let pattern = [&b"**/"[..], b"*/"]
        .iter()
        .find_map(|front| pattern.strip_prefix(*front))
        .unwrap_or(pattern);
    (0..root.len()).find_map(|from| {
        let mut rest = pattern;
        for component in &root[from..] {
            rest = rest.strip_prefix(*component)?.strip_prefix(b"/")?;
        }
        (!rest.is_empty()).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(pattern: &str, names: &[&str]) -> Option<String> {
        let root: [&[u8]; 3] = [b"home", b"srv", b"app"];
        advice(pattern.as_bytes(), &root, |name| {
            names.iter().any(|one| one.as_bytes() == name)
        })
    }

    #[test]
    fn a_pattern_that_repeats_the_sources_path_gets_advice() {
        for pattern in [
            "srv/app/cache",
            "app/cache",
            "home/srv/app/cache",
            "srv/app/cache/",
            "app/*.log",
            "!app/cache",
            "*/srv/app/cache",
            "**/app/cache",
        ] {
            let what = advised(pattern, &["cache"])
                .unwrap_or_else(|| panic!("{pattern} is taken in silence"));
            assert!(
                what.contains("'/cache") || what.contains("'/*.log"),
                "{pattern}: {what}"
            );
        }
    }

    #[test]
    fn syntax_of_other_programs_gets_advice() {
        for pattern in [
            "sh:cache",
            "re:^cache$",
            "pp:srv/app",
            "$HOME/cache",
            "$PWD/x",
        ] {
            assert!(advised(pattern, &[]).is_some(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_may_match_gets_no_advice() {
        for pattern in [
            "cache",
            "/cache",
            "app",
            "app/",
            "lib/cache",
            "**/cache",
            "*.o",
            "/app",
            "srv/other/cache",
        ] {
            assert_eq!(advised(pattern, &[]), None, "{pattern}");
        }
        // The source has a directory of this name.
        assert_eq!(advised("app/cache", &["app"]), None);
        assert_eq!(advised("sh:cache", &["sh:cache"]), None);
    }
}
