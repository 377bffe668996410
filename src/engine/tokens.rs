//! What a token that was shown is worth now.

use jiff::Timestamp;

use crate::api::{ClusterId, token::GivenToken};

/// What showing a token leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It lets its bearer in, and is not used up by that.
    Open,
    /// It lets its bearer in, and one use of it is gone.
    Counted,
    /// It let the same cluster in before: asking again costs nothing, so that a crash between the
    /// count and the acceptance loses nothing.
    Again,
    /// It has been used as often as it may.
    Spent,
    /// Its end has come.
    Expired,
}

impl Worth {
    /// Tells whether the bearer is let in.
    pub fn lets_in(self) -> bool {
        matches!(self, Self::Open | Self::Counted | Self::Again)
    }
}

/// Tells what a token is worth for a cluster. `timed_out` is what a clock that cannot be set says
/// about its end.
pub fn worth(token: &GivenToken, bearer: &ClusterId, now: Timestamp, timed_out: bool) -> Worth {
    let past = token.expires.is_some_and(|end| now >= end);
    if token.ended || timed_out || past {
        return Worth::Expired;
    }
    match token.uses {
        None => Worth::Open,
        Some(_) if token.used_by.contains(bearer) => Worth::Again,
        Some(0) => Worth::Spent,
        Some(_) => Worth::Counted,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::token::TokenHash;

    fn token() -> GivenToken {
        GivenToken {
            name: "invite".to_owned(),
            uid: "1".to_owned(),
            hash: TokenHash::of("0123456789abcdef0123456789abcdef").unwrap(),
            created: Some(Timestamp::UNIX_EPOCH),
            expires: None,
            uses: None,
            used_by: BTreeSet::new(),
            ended: false,
        }
    }

    #[test]
    fn a_token_is_worth_what_is_left_of_it() {
        let (rome, milan) = (
            ClusterId::from_spki(b"rome"),
            ClusterId::from_spki(b"milan"),
        );
        let now = Timestamp::from_second(1000).unwrap();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let used = |uses, used_by: &[&ClusterId]| GivenToken {
            uses: Some(uses),
            used_by: used_by.iter().copied().cloned().collect(),
            ..token()
        };
        let until = |second| GivenToken {
            expires: at(second),
            ..used(1, &[&rome])
        };
        for (token, timed_out, expected) in [
            (token(), false, Worth::Open),
            (used(1, &[]), false, Worth::Counted),
            (used(0, &[&milan]), false, Worth::Spent),
            (used(0, &[&rome]), false, Worth::Again),
            (used(7, &[&rome]), false, Worth::Again),
            (until(1001), false, Worth::Again),
            (until(1000), false, Worth::Expired),
            (until(2000), true, Worth::Expired),
            (
                GivenToken {
                    ended: true,
                    ..token()
                },
                false,
                Worth::Expired,
            ),
        ] {
            assert_eq!(worth(&token, &rome, now, timed_out), expected, "{token:?}");
        }
    }
}
