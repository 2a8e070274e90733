//! Tests of the comparison of images, and of the warnings.

use super::super::super::profile::{
    DatabaseServer, NodeDatabase, NodeSource, ServerAccess, SourceLocation,
};
use super::*;
use crate::advice::Advice;

const LETTERS: [&str; 3] = ["0a", "1b", "2c"];

/// Returns an id or a digest.
fn hash(number: usize) -> String {
    format!("sha256:{}", LETTERS[number].repeat(32))
}

fn profile() -> NodeLayout {
    let part = |source: &str| {
        Some(NodeSource {
            source: source.into(),
            place: SourceLocation::Path("/x".into()),
        })
    };
    let access = ServerAccess::Direct {
        address: None,
        port: None,
        password_file: None,
    };
    NodeLayout {
        database: Some(NodeDatabase {
            source: "db".into(),
            server: DatabaseServer { access, user: None },
        }),
        local_storage: part("local"),
        ipfs: part("ipfs"),
        keys: part("keys"),
        config: part("config"),
        ..NodeLayout::default()
    }
}

/// A service that ran with the image of id 0. If it was pulled, its digest is 1.
fn was(image: &str, is_pulled: bool, sources: &[&str]) -> ServiceImage {
    ServiceImage {
        service: "one".into(),
        image: image.into(),
        id: hash(0),
        digest: is_pulled.then(|| format!("ipfs/kubo@{}", hash(1))),
        sources: sources.iter().map(|&source| source.to_owned()).collect(),
    }
}

fn local(id: usize, tag: &str, digest: Option<usize>) -> LocalImage {
    LocalImage {
        id: hash(id),
        tags: vec![tag.to_owned()],
        digests: digest
            .map(|number| format!("ipfs/kubo@{}", hash(number)))
            .into_iter()
            .collect(),
    }
}

fn checked(was: ServiceImage, now: &str, images: &[LocalImage]) -> ImageCheck {
    ImageCheck::new(
        SnapshotId::new([1; 32]),
        was,
        Ok(now.to_owned()),
        Ok(images),
    )
}

#[test]
fn the_same_image_is_known_whatever_it_is_called() {
    let stable = "ipfs/kubo:stable";
    let pinned = format!("ipfs/kubo@{}", hash(1));
    let other = format!("ipfs/kubo:stable@{}", hash(2));
    let cases = [
        // The same id; the same digest with an id of another engine or architecture; another name
        // for the image.
        (
            true,
            stable,
            vec![local(0, stable, None)],
            ImageVerdict::Same,
        ),
        (
            true,
            stable,
            vec![local(2, stable, Some(1))],
            ImageVerdict::Same,
        ),
        (
            false,
            stable,
            vec![local(0, stable, Some(2))],
            ImageVerdict::Same,
        ),
        (
            true,
            "ipfs/kubo:v0.38",
            vec![local(0, "ipfs/kubo:v0.38", None)],
            ImageVerdict::Same,
        ),
        (
            true,
            "docker.io/ipfs/kubo:stable",
            vec![local(0, stable, None)],
            ImageVerdict::Same,
        ),
        (true, pinned.as_str(), vec![], ImageVerdict::Same),
        (false, &hash(0), vec![], ImageVerdict::Same),
        // An image that was pulled since; another name; another pin.
        (
            true,
            stable,
            vec![local(2, stable, Some(2))],
            ImageVerdict::Other,
        ),
        (
            false,
            stable,
            vec![local(2, stable, None)],
            ImageVerdict::Other,
        ),
        (
            true,
            stable,
            vec![
                local(2, stable, Some(2)),
                local(0, "<none>:<none>", Some(1)),
            ],
            ImageVerdict::Other,
        ),
        (true, "ipfs/kubo:v0.43", vec![], ImageVerdict::Other),
        (
            true,
            "ipfs/kubo",
            vec![local(0, stable, Some(1))],
            ImageVerdict::Other,
        ),
        (true, other.as_str(), vec![], ImageVerdict::Other),
        (true, &hash(2), vec![], ImageVerdict::Other),
        // No image on this machine yet.
        (true, stable, vec![], ImageVerdict::NotHere),
        (
            true,
            "docker.io/ipfs/kubo:stable",
            vec![local(2, "other:1", None)],
            ImageVerdict::NotHere,
        ),
    ];

    for (is_pulled, now, images, wanted) in cases {
        let check = checked(was(stable, is_pulled, &[]), now, &images);
        assert_eq!(check.verdict, wanted, "{now} {images:?}");
    }

    let nothing = checked(was(stable, true, &[]), "postgres:", &[]);
    assert!(matches!(nothing.verdict, ImageVerdict::Unknown(_)));
}

#[test]
fn without_an_answer_only_names_are_compared() {
    let unknown = |now: Result<&str, &str>| {
        let now = now.map(str::to_owned).map_err(str::to_owned);
        ImageCheck::new(
            SnapshotId::new([1; 32]),
            was("a:1", false, &[]),
            now,
            Err("no engine"),
        )
    };
    assert_eq!(
        unknown(Ok("a:1")).verdict,
        ImageVerdict::Unknown("no engine".into())
    );
    assert_eq!(
        unknown(Err("no compose file")).verdict,
        ImageVerdict::Unknown("no compose file".into())
    );
    let other = unknown(Ok("a:2"));
    assert_eq!((&other.verdict, &other.pin), (&ImageVerdict::Other, &None));
    let problem = other.problem(&profile(), false).expect("a warning");
    assert_eq!(
        (problem.severity, problem.advice),
        (Severity::Warning, None)
    );
    assert!(
        unknown(Ok("a:1")).problem(&profile(), false).is_none(),
        "the plan shows it"
    );
}

fn text(advice: Option<Advice>) -> String {
    match advice {
        Some(Advice::Text(text)) => text.into_owned(),
        advice => panic!("not a text: {advice:?}"),
    }
}

#[test]
fn a_warning_names_the_risk_and_how_to_pin_the_old_image() {
    let problem_of = |sources: &[&str], is_pulled: bool, images: &[LocalImage]| {
        let check = checked(
            was("ipfs/kubo:stable", is_pulled, sources),
            "ipfs/kubo:stable",
            images,
        );
        check.problem(&profile(), true).expect("something to tell")
    };

    let pulled = [local(2, "ipfs/kubo:stable", Some(2))];
    for (sources, risk) in [
        (
            &["config", "ipfs"][..],
            "kubo may refuse the snapshot's settings",
        ),
        (&["keys", "config", "local"], "may migrate the database"),
        (&["local", "ipfs", "keys"], "may migrate the database"),
        (&["config", "db"], "another version of its server"),
        (&[], "may not work"),
    ] {
        let problem = problem_of(sources, true, &pulled);
        assert_eq!(
            (problem.severity, problem.subject.as_str()),
            (Severity::Warning, "service 'one'")
        );
        for part in [
            risk,
            &format!("ran with ipfs/kubo:stable (ipfs/kubo@{})", hash(1)),
            &hash(2),
        ] {
            assert!(problem.message.contains(part), "{part} in {problem}");
        }
        let hint = text(problem.advice);
        assert!(
            hint.ends_with(&format!("at service 'one': image: ipfs/kubo@{}", hash(1))),
            "{hint}"
        );
    }

    // An image that is in no registry is pinned by its id if this machine has it. Otherwise it
    // cannot be pulled.
    let hint = |images: &[LocalImage]| text(problem_of(&["ipfs"], false, images).advice);
    let both = [pulled[0].clone(), local(0, "<none>:<none>", None)];
    assert!(
        hint(&both).ends_with(&format!("image: {}", hash(0))),
        "{}",
        hint(&both)
    );
    assert!(hint(&pulled).contains("docker save"), "{}", hint(&pulled));

    let absent = problem_of(&["ipfs"], true, &[]);
    assert_eq!(absent.severity, Severity::Note, "the name is the same");
    assert!(
        absent.message.contains("a pull of that name") && absent.advice.is_some(),
        "{absent}"
    );

    let same = checked(was("a:1", true, &[]), "a:1", &[local(0, "a:1", None)]);
    assert_eq!(same.problem(&profile(), true), None);
}

proptest::proptest! {
    /// For any names, an image is the same only if its id or its digest is the same, and no text
    /// makes a comparison fail.
    #[test]
    fn no_name_makes_another_image_the_same(
        before in "\\PC{0,20}", now in "\\PC{0,20}|[a-c/:@.]{1,9}", tag in "[a-c/:@.]{0,9}", id in 0..3usize, digest in 0..3usize,
        is_pulled: bool,
    ) {
        let ran = was(&before, is_pulled, &[]);
        let check = checked(ran.clone(), &now, &[local(id, &tag, Some(digest))]);
        // Some engines use the digest as the id, so an id is compared with digests too.
        let is_same = id == 0 || digest == 0 || (is_pulled && digest == 1);
        if check.verdict == ImageVerdict::Same {
            proptest::prop_assert!(is_same);
        }
        if check.local.is_some() {
            proptest::prop_assert_eq!(check.verdict == ImageVerdict::Same, is_same);
        }
        // The same image under its name, if the name is valid.
        let again = checked(ran, &now, &[local(0, &now, None)]);
        if ImageReference::parse(&now).is_some_and(|name| name.digest().is_none()) {
            proptest::prop_assert_eq!(again.verdict, ImageVerdict::Same);
        }
    }
}
