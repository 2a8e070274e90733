//! Tests of filters.

use super::*;

fn filter(excludes: &[&str]) -> Filter {
    let excludes = excludes.iter().map(OsString::from).collect();
    Filter::new(&FilterOptions {
        excludes,
        ..FilterOptions::default()
    })
    .expect("good patterns")
}

fn path(bytes: &[u8]) -> RelPath {
    RelPath::from_slashed(bytes).expect("a good path")
}

#[test]
fn patterns_follow_gitignore() {
    // Pattern list, path (a directory if it ends with a slash), excluded?
    let cases: &[(&[&str], &[u8], bool)] = &[
        (&["*.o"], b"a/b.o", true),
        (&["*.o"], b"a/b.oo", false),
        (&["/x"], b"x", true),
        (&["/x"], b"a/x", false),
        (&["a/b"], b"a/b", true),
        (&["a/b"], b"c/a/b", false),
        (&["b/"], b"a/b/", true),
        (&["b/"], b"a/b", false),
        (&["**/t/*.c"], b"x/y/t/z.c", true),
        (&["a/**"], b"a/x/y", true),
        (&["a/**"], b"a/", false),
        (&["a/**/z"], b"a/z", true),
        (&["*.o", "!keep.o"], b"keep.o", false),
        (&["!keep.o", "*.o"], b"keep.o", true),
        (&["*"], b"a\nb", true),
        (&["**/a*z"], b"d/a\nz", true),
        (&["a?c"], b"a/c", false),
        (&["*.tmp"], b"x/\xff\xfe.tmp", true),
        (&["[ab]1"], b"a1", true),
        (&["[!a]1"], b"b1", true),
        (&["\\*"], b"*", true),
        (&["\\*"], b"x", false),
        (&["#a#"], b"#a#", true),
        (&["\\!a"], b"!a", true),
        (&["{a,b}"], b"a", false),
        (&["{a,b}"], b"{a,b}", true),
        (&["x{"], b"x{", true),
        (&["[{]x"], b"{x", true),
        (&["*"], b"", false),
        (&[], b"anything", false),
    ];
    for (patterns, name, expected) in cases {
        let is_directory = name.ends_with(b"/");
        assert_eq!(
            filter(patterns).excludes(&path(name), is_directory),
            *expected,
            "{patterns:?} on {:?}",
            path(name)
        );
    }
}

#[test]
fn a_path_of_any_depth_is_matched() {
    let deep = "0123456789/".repeat(2000) + "x.o";
    assert!(filter(&["*.o"]).excludes(&path(deep.as_bytes()), false));
    assert!(filter(&["/0123456789/**/x.o"]).excludes(&path(deep.as_bytes()), false));
    assert!(!filter(&["/x.o"]).excludes(&path(deep.as_bytes()), false));
}

#[test]
fn a_bad_pattern_is_named_with_its_place() {
    let options = FilterOptions {
        excludes: vec!["ok".into(), "b[0-9".into()],
        ..Default::default()
    };
    match Filter::new(&options) {
        Err(FilterError::Pattern {
            place,
            pattern,
            problem,
        }) => {
            assert_eq!(
                place,
                PatternPlace::Option {
                    given_as: GivenAs::Exclude,
                    number: 2
                }
            );
            assert_eq!(pattern, b"b[0-9");
            assert_eq!(problem, PatternProblem::OpenClass);
        }
        other => panic!("{other:?}"),
    }

    for pattern in ["", "  ", "./a", "a\\"] {
        let options = FilterOptions {
            excludes: vec![pattern.into()],
            ..Default::default()
        };
        let error = Filter::new(&options).expect_err("it matches nothing");
        assert!(error.to_string().contains("exclude option 1"), "{error}");
    }

    let options = FilterOptions {
        exclude_files: vec!["/nonexistent".into()],
        ..Default::default()
    };
    assert!(matches!(Filter::new(&options), Err(FilterError::File(_))));
}

#[test]
fn a_negated_pattern_with_none_before_it_is_warned_of() {
    let warned = |patterns: &[&str]| {
        filter(patterns)
            .misread("home", Path::new("/srv/h"), |name| name == b"there")
            .len()
    };
    assert_eq!(
        [
            warned(&["!a"]),
            warned(&["!a", "!b", "c"]),
            warned(&["c", "!a"])
        ],
        [1, 2, 0]
    );
    assert_eq!(
        [
            warned(&["home/a"]),
            warned(&["there/a"]),
            warned(&["homes/a"])
        ],
        [1, 0, 0],
        "the name"
    );
}

#[test]
fn a_bad_line_of_a_file_is_passed_over_as_by_git_and_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("list");
    std::fs::write(&file, b"# fine\nok\r\n\na[a-z\n\xff*\n").expect("written");
    let options = FilterOptions {
        exclude_files: vec![file.clone()],
        ..Default::default()
    };

    let filter = Filter::new(&options).expect("read");
    let vain: Vec<String> = filter
        .vain_lines()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(vain.len(), 1, "{vain:?}");
    assert!(
        vain[0].starts_with("line 4 of ") && vain[0].contains("'a[a-z'"),
        "{vain:?}"
    );
    assert!(filter.excludes(&path(b"ok"), false));
    assert!(
        filter.excludes(&path(b"a/\xff.x"), false),
        "a pattern need not be UTF-8"
    );
}

#[test]
fn patterns_for_absolute_paths_are_refused() {
    // Source, pattern, names in its root, expected text of the error (`None`: accepted).
    let cases: &[(&str, &str, &[&str], Option<&str>)] = &[
        (
            "/srv/app",
            "/srv/app/cache",
            &["cache"],
            Some("write '/cache'"),
        ),
        (
            "/srv/app",
            "!/srv/app/cache/keep",
            &["cache"],
            Some("write '/cache/keep'"),
        ),
        ("/srv/app", "/srv/*/cache", &[], Some("write '/cache'")),
        (
            "/home/alice",
            "/home/*/.cache/",
            &[],
            Some("write '/.cache/'"),
        ),
        (
            "/srv/app",
            "/srv/**/cache",
            &[],
            Some("leave out the source itself"),
        ),
        ("/srv/app", "/srv", &[], Some("leave out the source itself")),
        (
            "/srv/app",
            "/srv/app/",
            &[],
            Some("leave out the source itself"),
        ),
        ("/srv/app", "~/cache", &[], Some("begins with '~'")),
        ("/srv/app", "~/cache", &["~"], None),
        ("/srv/app", "/srv/app/cache", &["srv"], None),
        ("/srv/app", "/srv/other/cache", &[], None),
        ("/srv/app", "/srv/application", &[], None),
        ("/srv/app", "/cache", &["cache"], None),
        ("/srv/app", "/*", &[], None),
        ("/srv/app", "/*/cache", &[], None),
        ("/srv/app", "srv/app/cache", &[], None),
        ("/", "/var/cache", &["var"], None),
    ];
    for (root, pattern, names, expected) in cases {
        let has_name = |name: &[u8]| names.iter().any(|one| one.as_bytes() == name);
        let result = filter(&[pattern]).refuse_absolute(Path::new(root), has_name);
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(text)) => {
                let error = error.to_string();
                assert!(
                    error.contains(text) && error.contains("exclude option 1"),
                    "{error}"
                );
            }
            (result, _) => panic!("{pattern} of {root}: {result:?}"),
        }
    }
}

#[test]
fn the_digest_depends_on_the_exclusions_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("list");
    let text = |content: &str| {
        std::fs::write(&file, content).expect("written");
        let options = FilterOptions {
            exclude_files: vec![file.clone()],
            ..FilterOptions::default()
        };
        Filter::new(&options).expect("good").digest_text()
    };
    assert_eq!(text("a\nb\n"), text("# why\n\na\r\nb"));
    assert_ne!(text("a\nb\n"), text("b\na\n"));
    assert_eq!(text("a\nb\n"), filter(&["a", "b"]).digest_text());

    let with = |change: fn(&mut FilterOptions)| {
        let mut options = FilterOptions::default();
        change(&mut options);
        Filter::new(&options).expect("good").digest_text()
    };
    let plain = with(|_| {});
    let texts = [
        with(|options| options.exclude_caches = true),
        with(|options| options.exclude_larger_than = Some(0)),
        with(|options| options.one_file_system = true),
        with(|options| {
            options.never = vec![DirectoryId {
                device: 1,
                inode: 2,
            }];
        }),
        with(|options| options.excludes = vec!["a\npattern \"b\"".into()]),
    ];

    assert!(texts.iter().all(|text| *text != plain));
    assert_eq!(
        texts[3],
        with(|options| options.never = vec![DirectoryId {
            device: 9,
            inode: 2
        }])
    );
    assert_ne!(texts[4], filter(&["a", "b"]).digest_text());
}

#[test]
fn sizes_and_identities_are_compared() {
    let options = FilterOptions {
        exclude_larger_than: Some(10),
        never: vec![
            DirectoryId {
                device: 1,
                inode: 5,
            },
            DirectoryId {
                device: 1,
                inode: 2,
            },
        ],
        ..FilterOptions::default()
    };
    let filter = Filter::new(&options).expect("good");
    assert!(!filter.excludes_size(10) && filter.excludes_size(11));
    assert!(filter.is_never(DirectoryId {
        device: 1,
        inode: 2
    }));
    assert!(!filter.is_never(DirectoryId {
        device: 2,
        inode: 2
    }));
}

#[test]
fn a_cache_directory_has_the_right_tag() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let tag = dir.path().join("CACHEDIR.TAG");
    let options = FilterOptions {
        exclude_caches: true,
        ..FilterOptions::default()
    };
    let filter = Filter::new(&options).expect("good");
    assert!(!filter.is_cache_directory(&directory));
    std::fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc5").expect("written");
    assert!(!filter.is_cache_directory(&directory), "cut short");
    std::fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55\n# more").expect("written");
    assert!(filter.is_cache_directory(&directory));
    assert!(
        !Filter::new(&FilterOptions::default())
            .expect("good")
            .is_cache_directory(&directory)
    );
    std::fs::rename(&tag, dir.path().join("real")).expect("renamed");
    std::os::unix::fs::symlink("real", &tag).expect("linked");
    assert!(
        !filter.is_cache_directory(&directory),
        "a symlink is no tag"
    );
}
