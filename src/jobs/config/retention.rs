//! `[retention]`: the snapshots to keep.

use std::time::Duration;

use serde::Deserialize;

use super::value;
use crate::ops::forget::{Period, PeriodSlots, Policy};

/// `[retention]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct RetentionTable {
    #[serde(deserialize_with = "value::slots")]
    keep_last: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::slots")]
    keep_hourly: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::slots")]
    keep_daily: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::slots")]
    keep_weekly: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::slots")]
    keep_monthly: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::slots")]
    keep_yearly: Option<PeriodSlots>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within: Option<Duration>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within_hourly: Option<Duration>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within_daily: Option<Duration>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within_weekly: Option<Duration>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within_monthly: Option<Duration>,
    #[serde(deserialize_with = "value::retention_span")]
    keep_within_yearly: Option<Duration>,
    #[serde(deserialize_with = "value::tags")]
    keep_tags: Vec<String>,
}

impl RetentionTable {
    /// Converts the table to rules.
    pub fn policy(self) -> Policy {
        let slots = [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ];
        let spans = [
            (Period::Hour, self.keep_within_hourly),
            (Period::Day, self.keep_within_daily),
            (Period::Week, self.keep_within_weekly),
            (Period::Month, self.keep_within_monthly),
            (Period::Year, self.keep_within_yearly),
        ];
        let slots = slots.into_iter();
        let spans = spans.into_iter();
        Policy {
            last: self.keep_last,
            within: self.keep_within,
            periods: slots
                .filter_map(|(period, slots)| Some((period, slots?)))
                .collect(),
            periods_within: spans
                .filter_map(|(period, span)| Some((period, span?)))
                .collect(),
            tags: self.keep_tags,
        }
    }
}
