//! Formats metrics in Prometheus' text format, for files that its node exporter collects.

use std::fmt::Write as _;

/// Metrics in the order in which they are added.
#[derive(Debug, Default)]
pub struct Metrics(String);

/// Labels and a value.
pub type Sample = (Vec<(&'static str, String)>, f64);

impl Metrics {
    /// Adds a gauge. A gauge without samples is left out.
    pub fn gauge(&mut self, name: &str, help: &str, samples: Vec<Sample>) {
        if samples.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Escapes a label's value for use between quotes.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_empty_metrics_left_out() {
        let mut metrics = Metrics::default();
        metrics.gauge(
            "a_bytes",
            "How much.",
            vec![(vec![("host", "x\\\"\ny".into())], 1.5)],
        );
        metrics.gauge("b", "Nothing.", vec![]);
        metrics.gauge("c", "One.", vec![(vec![], 1_770_000_000.25)]);
        assert_eq!(
            metrics.finish(),
            "# HELP a_bytes How much.\n# TYPE a_bytes gauge\na_bytes{host=\"x\\\\\\\"\\ny\"} 1.5\n\
             # HELP c One.\n# TYPE c gauge\nc 1770000000.25\n"
        );
    }
}
