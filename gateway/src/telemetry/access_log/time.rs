//! Wall-clock times as text, in UTC.

use std::{
    cell::Cell,
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

/// A moment, split into what a calendar and a clock show.
struct Civil {
    year: i64,
    month: u64,
    day: u64,
    second_of_day: u64,
    nanos: u32,
    epoch: u64,
}

/// A moment as every line of the log has it.
pub(crate) struct Iso8601([u8; 24]);

impl Iso8601 {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        // Digits and separators.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// `2016-12-15T16:07:39.072Z`; every line has one, so it does without a pattern.
pub(crate) fn iso8601(at: SystemTime) -> Iso8601 {
    thread_local! {
        /// The second of the last line, which the next mostly has too, and its text.
        static LAST: Cell<(u64, [u8; 24])> = const { Cell::new((u64::MAX, [0; 24])) };
    }
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut text) = LAST.get();
    if second != since.as_secs() {
        text = whole_second(at);
        LAST.set((since.as_secs(), text));
    }
    put(&mut text, 20, 3, since.subsec_millis().into());
    Iso8601(text)
}

/// The text of a moment without its fraction.
fn whole_second(at: SystemTime) -> [u8; 24] {
    let c = civil(at);
    let second = c.second_of_day;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text, 0, 4, c.year.unsigned_abs());
    put(&mut text, 5, 2, c.month);
    put(&mut text, 8, 2, c.day);
    put(&mut text, 11, 2, second / 3600);
    put(&mut text, 14, 2, second / 60 % 60);
    put(&mut text, 17, 2, second % 60);
    text
}

/// Writes a number of so many digits.
fn put(text: &mut [u8; 24], at: usize, width: usize, n: u64) {
    let mut rest = n;
    for digit in text.iter_mut().skip(at).take(width).rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
}

/// Writes a moment by a `strftime` pattern: `%Y %m %d %H %M %S %s %F %T`, and `%f` or `%3f`, `%6f`, `%9f` for
/// fractions of a second; anything else stands for itself.
pub(crate) fn strftime(at: SystemTime, pattern: &str, out: &mut String) {
    let c = civil(at);
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        let width = chars.next_if(|c| matches!(c, '3' | '6' | '9'));
        let done = match chars.next() {
            Some('Y') => write!(out, "{:04}", c.year),
            Some('m') => write!(out, "{:02}", c.month),
            Some('d') => write!(out, "{:02}", c.day),
            Some('H') => write!(out, "{:02}", c.second_of_day / 3600),
            Some('M') => write!(out, "{:02}", c.second_of_day / 60 % 60),
            Some('S') => write!(out, "{:02}", c.second_of_day % 60),
            Some('s') => write!(out, "{}", c.epoch),
            Some('F') => write!(out, "{:04}-{:02}-{:02}", c.year, c.month, c.day),
            Some('T') => {
                let s = c.second_of_day;
                write!(out, "{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
            }
            Some('f') => match width {
                Some('3') => write!(out, "{:03}", c.nanos / 1_000_000),
                Some('6') => write!(out, "{:06}", c.nanos / 1_000),
                _ => write!(out, "{:09}", c.nanos),
            },
            Some(other) => write!(out, "{other}"),
            None => write!(out, "%"),
        };
        // Writing to a String cannot fail.
        debug_assert!(done.is_ok());
    }
}

fn civil(at: SystemTime) -> Civil {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let days = (since.as_secs() / 86_400).cast_signed();
    // Days to a date in the proleptic Gregorian calendar, with years that begin in March so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: month.unsigned_abs(),
        day: day.unsigned_abs(),
        second_of_day: since.as_secs() % 86_400,
        nanos: since.subsec_nanos(),
        epoch: since.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_follow_the_calendar() {
        for (millis, wants) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_481_818_059_072, "2016-12-15T16:07:39.072Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_399_007, "2100-02-28T23:59:59.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(UNIX_EPOCH + Duration::from_millis(millis)).as_str(), wants);
        }
    }
}
