//! Series as they are told: those that end up with the same labels are one.
//!
//! Invariant: what is told under one name and labels never falls while something of it is still told, whatever leaves the
//! configuration. Labels are put into words once a series and not once a line: of 10,000 lines they are nearly all.

use super::{
    histogram::Sums,
    labels::{Labels, Pairs, Told as What},
    rules::{Rules, Values},
    series::AllBounds,
    target::Target,
};
use crate::telemetry::names;
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

/// What is told, by the place of its metric in [`names::ISTIO`].
#[derive(Default)]
pub(super) struct Told {
    /// Series that are told alone, with the labels that they have.
    plain: [Vec<(Arc<str>, Number)>; names::ISTIO.len()],
    /// Those whose labels are changed.
    merged: HashMap<(usize, String), Number>,
}

#[derive(Clone)]
enum Number {
    Count(u64),
    Sums(Sums),
}

impl Number {
    fn add(&mut self, other: &Number) {
        match (self, other) {
            (Number::Count(own), Number::Count(more)) => *own += more,
            (Number::Sums(own), Number::Sums(more)) => own.add(more),
            // A metric is one or the other.
            _ => {}
        }
    }
}

/// One series that is about to be told.
struct Series<'s> {
    pairs: Pairs<'s>,
    values: Option<&'s Values>,
    /// Whether it came in to a workload.
    inbound: bool,
    /// Its labels where nothing changes them.
    text: Option<Arc<str>>,
}

impl Told {
    /// Adds all that was counted of a target.
    pub(super) fn add(&mut self, target: &Target, labels: &Labels<'_>, rules: &Rules) {
        let inbound = target.place.inbound;
        let plain = target.series().into_iter().map(|series| (None, series));
        let made = target.all_made().into_iter().map(|(values, series)| (Some(values), series));
        for (values, series) in plain.chain(made) {
            let requests = series.duration.count();
            // Only one that began anew has none.
            if requests == 0 {
                continue;
            }
            let pairs = labels.pairs(&target.place, &What::Requests(series.outcome));
            let mut told = Series { pairs, values: values.as_ref(), inbound, text: None };
            self.push(names::REQUESTS, &mut told, rules, || Number::Count(requests));
            for (name, histogram) in [
                (names::REQUEST_DURATION, &series.duration),
                (names::REQUEST_BYTES, &series.request_bytes),
                (names::RESPONSE_BYTES, &series.response_bytes),
            ] {
                self.push(name, &mut told, rules, || {
                    let mut sums = Sums::default();
                    histogram.add_to(&mut sums);
                    Number::Sums(sums)
                });
            }
        }
        for ((flags, values), series) in target.all_tcp() {
            let pairs = labels.pairs(&target.place, &What::Connections(flags));
            let mut told = Series { pairs, values: values.as_ref(), inbound, text: None };
            for (name, counter) in [
                (names::TCP_OPENED, &series.opened),
                (names::TCP_CLOSED, &series.closed),
                (names::TCP_SENT, &series.sent),
                (names::TCP_RECEIVED, &series.received),
            ] {
                self.push(name, &mut told, rules, || Number::Count(counter.load(Ordering::Relaxed)));
            }
        }
        if let Some((requests, responses)) = target.messages() {
            let pairs = labels.pairs(&target.place, &What::Messages);
            let mut told = Series { pairs, values: None, inbound, text: None };
            self.push(names::REQUEST_MESSAGES, &mut told, rules, || Number::Count(requests));
            self.push(names::RESPONSE_MESSAGES, &mut told, rules, || Number::Count(responses));
        }
    }

    /// Keeps what is told of a target together with others, which is gone.
    pub(super) fn depart(&mut self, target: &Target, labels: &Labels<'_>, rules: &Rules) {
        self.add(target, labels, rules);
        self.plain.iter_mut().for_each(Vec::clear);
    }

    /// Adds what is left of targets that are gone, where it goes with what is there. Of the rest this is the last that is told.
    pub(super) fn add_departed(&mut self, departed: &mut Told) {
        departed.merged.retain(|key, number| match self.merged.entry(key.clone()) {
            Entry::Occupied(mut there) => {
                there.get_mut().add(number);
                true
            }
            Entry::Vacant(place) => {
                place.insert(number.clone());
                false
            }
        });
    }

    fn push(&mut self, name: &str, series: &mut Series<'_>, rules: &Rules, number: impl FnOnce() -> Number) {
        let Some(index) = names::ISTIO.iter().position(|(known, _)| *known == name) else { return };
        let Some(rule) = rules.of(series.inbound).get(index).filter(|rule| !rule.disabled) else { return };
        let number = number();
        if rule.labels.is_empty() && rules.expressions.is_empty() {
            let text = series.text.get_or_insert_with(|| rule.labels(&series.pairs, None).into());
            if let Some(all) = self.plain.get_mut(index) {
                all.push((text.clone(), number));
            }
            return;
        }
        match self.merged.entry((index, rule.labels(&series.pairs, series.values))) {
            Entry::Occupied(mut there) => there.get_mut().add(&number),
            Entry::Vacant(place) => {
                place.insert(number);
            }
        }
    }

    /// In Prometheus' text format.
    pub(super) fn write(self, bounds: &AllBounds, out: &mut String) {
        let mut all = self.plain;
        for ((index, labels), number) in self.merged {
            if let Some(all) = all.get_mut(index) {
                all.push((labels.into(), number));
            }
        }
        let room = all.iter().flatten().map(|(labels, number)| (labels.len() + 80) * number.lines()).sum();
        out.reserve(room);
        for ((name, help), mut all) in names::ISTIO.into_iter().zip(all) {
            let Some((_, first)) = all.first() else { continue };
            let (kind, bounds) = match (first, name) {
                (Number::Count(_), _) => ("counter", &bounds.duration),
                (Number::Sums(_), names::REQUEST_BYTES) => ("histogram", &bounds.request_bytes),
                (Number::Sums(_), names::RESPONSE_BYTES) => ("histogram", &bounds.response_bytes),
                (Number::Sums(_), _) => ("histogram", &bounds.duration),
            };
            let _a_string_takes_all = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            let upper = bounds.upper().iter().map(|bound| format!("le=\"{bound}\""));
            let upper: Vec<String> = upper.chain(["le=\"+Inf\"".to_owned()]).collect();
            for (labels, number) in &all {
                match number {
                    Number::Count(count) => line(out, (name, ""), (labels, ""), *count),
                    Number::Sums(sums) => {
                        for (bound, count) in upper.iter().zip(&sums.buckets) {
                            line(out, (name, "_bucket"), (labels, bound), *count);
                        }
                        line(out, (name, "_sum"), (labels, ""), sums.sum);
                        line(
                            out,
                            (name, "_count"),
                            (labels, ""),
                            sums.buckets.last().copied().unwrap_or_default(),
                        );
                    }
                }
            }
        }
    }
}

impl Number {
    /// Lines that it takes.
    fn lines(&self) -> usize {
        match self {
            Number::Count(_) => 1,
            Number::Sums(sums) => sums.buckets.len() + 2,
        }
    }
}

fn line(out: &mut String, (name, suffix): (&str, &str), (labels, more): (&str, &str), value: u64) {
    out.push_str(name);
    out.push_str(suffix);
    if !(labels.is_empty() && more.is_empty()) {
        out.push('{');
        out.push_str(labels);
        if !(labels.is_empty() || more.is_empty()) {
            out.push(',');
        }
        out.push_str(more);
        out.push('}');
    }
    let _a_string_takes_all = writeln!(out, " {value}");
}
