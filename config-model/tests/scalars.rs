//! Scalars keep what they are given, and their laws hold for any value.

use config_model::scalar::{Duration, HostPattern, Percent, Timestamp};
use proptest::prelude::*;

fn host() -> impl Strategy<Value = HostPattern> {
    "(\\*|(\\*\\.)?[a-c]{1,2}(\\.[a-c]{1,2}){0,3})".prop_filter_map("a host", |text| text.parse().ok())
}

proptest! {
    #[test]
    fn a_duration_shows_what_it_reads(nanos in 0..i64::MAX as u64) {
        let duration = Duration::from(std::time::Duration::from_nanos(nanos));
        prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
    }

    #[test]
    fn a_go_duration_is_the_sum_of_its_parts(h in 0_u64..100, m in 0_u64..60, ms in 0_u64..60_000) {
        let read: Duration = format!("{h}h{m}m{ms}ms").parse().expect("a duration");
        prop_assert_eq!(read, Duration::from_millis(h * 3_600_000 + m * 60_000 + ms));
    }

    #[test]
    fn a_percentage_is_cut_not_rounded(value in 0.0..=100.0_f64) {
        let millionths = f64::from(Percent::new(value).expect("in range").millionths());
        prop_assert!(millionths <= value * 10_000.0 && value * 10_000.0 < millionths + 1.0);
    }

    #[test]
    fn a_time_stamp_shows_what_it_reads(seconds in -60_000_000_000_i64..250_000_000_000, nanos in 0_u32..1_000_000_000) {
        let stamp = Timestamp::from_unix(seconds, nanos);
        prop_assert_eq!(stamp.to_string().parse::<Timestamp>(), Ok(stamp));
    }

    #[test]
    fn a_host_shows_what_it_reads(pattern in host()) {
        prop_assert_eq!(pattern.to_string().parse::<HostPattern>(), Ok(pattern));
    }

    #[test]
    fn covering_is_an_order_and_intersection_its_meet(a in host(), b in host(), c in host()) {
        prop_assert!(a.covers(&a));
        if a.covers(&b) && b.covers(&c) {
            prop_assert!(a.covers(&c));
        }
        if a.covers(&b) && b.covers(&a) {
            prop_assert_eq!(&a, &b);
        }
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        if let Some(both) = a.intersect(&b) {
            prop_assert!(a.covers(both) && b.covers(both));
        }
        if let (Some(name), true) = (c.exact(), a.covers(&b)) {
            prop_assert!(!b.covers_name(name) || a.covers_name(name));
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,300}") {
        let _ = (text.parse::<Duration>(), text.parse::<HostPattern>(), text.parse::<Timestamp>());
    }
}
