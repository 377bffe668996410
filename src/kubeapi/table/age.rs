//! Ages as people read them: `42s`, `5m3s`, `2d4h`.

use jiff::Timestamp;
use serde_json::Value;

/// The age of a time in an object, in the words of kubectl.
pub(super) fn age_at(time: Option<&Value>, now: Timestamp) -> String {
    time.and_then(Value::as_str)
        .and_then(|text| text.parse::<Timestamp>().ok())
        .map_or_else(
            || "<unknown>".to_owned(),
            |time| duration(now.as_second() - time.as_second()),
        )
}

/// A duration in at most two units, the fewer the longer it is.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, rest: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{rest}")
        }
    };
    if seconds < 0 {
        "0s".to_owned()
    } else if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        pair(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 365 * 8 {
        pair(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_read_like_those_of_kubectl() {
        for (seconds, words) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (183, "3m3s"),
            (3_600, "60m"),
            (4 * 3_600 + 60, "4h1m"),
            (30 * 3_600, "30h"),
            (50 * 3_600, "2d2h"),
            (9 * 86_400, "9d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(duration(seconds), words);
        }
    }
}
