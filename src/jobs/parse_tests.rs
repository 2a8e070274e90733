//! Tests of values: which are accepted, and the messages for the others.

use super::*;

#[test]
fn names_that_cannot_be_meant_are_refused() {
    for good in ["a", "web-1.example.org", "käse", "a b", "(none)"] {
        assert_eq!(
            (host(good), tag(good)),
            (Ok(good.to_owned()), Ok(good.to_owned()))
        );
    }

    for bad in [
        "",
        " ",
        "\t",
        "\u{a0}",
        " a",
        "a ",
        "a\n",
        "a\u{1b}[2J",
        "a\0b",
    ] {
        assert!(host(bad).is_err() && tag(bad).is_err(), "{bad:?}");
    }

    assert!(tag("a,b").is_err() && host("a,b").is_ok());
    assert!(source_name(" ").is_err() && source_name("\u{3000}").is_err());

    assert_eq!(
        old_tag("a,b"),
        Ok("a,b".to_owned()),
        "what is there can be taken away"
    );
    assert!(old_tag("").is_err());
    assert_eq!(tag_or_none(""), Ok(String::new()));
    assert!(tag_or_none(" ").is_err());
    assert!(memory("1").is_err() && memory("63MiB").is_err() && memory("x").is_err());
    assert_eq!(memory("64MiB"), Ok(ByteSize(64 << 20)));
    assert!(some_size("0").is_err() && some_time("0s").is_err() && some_time("0h0m").is_err());
    assert_eq!(some_size("1"), Ok(ByteSize(1)));
}

#[test]
fn a_sources_name_has_bounds() {
    assert!(source_name(&"x".repeat(64)).is_ok());
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "a:b",
        "a=b",
        "a\nb",
        &"x".repeat(65),
        &"é".repeat(33),
    ] {
        assert!(source_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn shares_and_spans() {
    assert_eq!(percentage("5%"), Ok(0.05));
    assert_eq!(percentage("100%"), Ok(1.0));
    for bad in ["0%", "101%", "x", "NaN", "-1%", "", "%", "5", "0.05", "100"] {
        assert!(percentage(bad).is_err(), "{bad}");
    }
    assert_eq!(
        percentage("0.05"),
        Err("'0.05' has no '%': write 0.05% or 5%".to_owned())
    );
    assert_eq!(percentage("5"), Err("'5' has no '%': write 5%".to_owned()));

    assert_eq!(
        (
            whole_percent("5"),
            whole_percent("100%"),
            whole_percent("5 %")
        ),
        (Ok(5), Ok(100), Ok(5))
    );
    for bad in ["", "%", "0", "0%", "101", "1.5", "-5", "5%%"] {
        assert!(whole_percent(bad).is_err(), "{bad}");
    }

    assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
    assert_eq!(duration("1y1d"), Ok(Duration::from_secs(366 * 86_400)));

    for bad in [
        "",
        "10",
        "m",
        "1x",
        "1h30",
        "99999999999999999999s",
        "é",
        "1é",
        "-1d",
        "1d-1h",
        "1 d",
    ] {
        assert!(
            duration(bad).is_err() && retention_span(bad).is_err(),
            "{bad}"
        );
    }
}

/// The seconds that restic and borg take a span of a retention rule for. `None` if two tools differ
/// or the span is invalid.
#[test]
fn spans_of_retention_rules_mean_what_they_mean_in_restic_and_borg() {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    let table = [
        ("7d", Some(7 * DAY)),
        ("2h", Some(2 * HOUR)),
        ("48H", Some(48 * HOUR)),
        ("4w", Some(28 * DAY)),
        ("1y", Some(365 * DAY)),
        ("75y", Some(75 * 365 * DAY)),
        ("1y7d2h", Some(365 * DAY + 7 * DAY + 2 * HOUR)),
        ("1mo", Some(30 * DAY)),
        ("1min", Some(60)),
        ("1y5mo7d2h", Some((365 + 5 * 30 + 7) * DAY + 2 * HOUR)),
        // A month in restic and in borg's keep_within, a minute here and in systemd.
        ("1m", None),
        ("1y5m7d2h", None),
        ("6m", None),
        // A minute in borg, a month in systemd.
        ("1M", None),
        ("2Y", None),
        ("1W", None),
    ];

    for (text, seconds) in table {
        assert_eq!(
            retention_span(text).ok(),
            seconds.map(Duration::from_secs),
            "{text}"
        );
    }

    assert_eq!(
        retention_span("1y5m").expect_err("ambiguous"),
        "'5m' can mean a minute or a month: write 5mo (30 days) or 5min"
    );
}

/// A span composed of units that mean one thing is the sum of its parts, in either parser. With a
/// bare `m` anywhere in it, a retention rule refuses it.
#[test]
fn composed_spans_are_sums() {
    let units = [
        ("s", 1),
        ("min", 60),
        ("h", 3600),
        ("H", 3600),
        ("d", 86_400),
        ("w", 604_800),
    ];
    let units = units
        .into_iter()
        .chain([("mo", 2_592_000), ("y", 31_536_000)])
        .collect::<Vec<_>>();

    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };

    for _ in 0..500 {
        let mut text = String::new();
        let mut seconds = 0;
        for _ in 0..=next(4) {
            let number = next(400) as u64;
            let (name, unit) = units[next(units.len())];
            text.push_str(&format!("{number}{name}"));
            seconds += number * unit;
        }

        assert_eq!(duration(&text), Ok(Duration::from_secs(seconds)), "{text}");
        assert_eq!(retention_span(&text), duration(&text), "{text}");

        let with_m = format!("{text}{}m", next(9));
        assert!(
            retention_span(&with_m)
                .expect_err("refused")
                .contains("a minute or a month"),
            "{with_m}"
        );
        assert!(duration(&with_m).is_ok(), "{with_m}");
    }
}

#[test]
fn slots_without_end_have_the_names_of_other_tools() {
    for all in ["all", "unlimited", "-1"] {
        assert_eq!(slots(all), Ok(PeriodSlots::All), "{all}");
    }
    assert_eq!(
        (slots("0"), slots("7")),
        (Ok(PeriodSlots::Some(0)), Ok(PeriodSlots::Some(7)))
    );
    for bad in ["", "-2", "some", "1.5", "ALL"] {
        assert!(slots(bad).is_err(), "{bad}");
    }
}
