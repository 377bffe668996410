//! The verbs about tokens.

use clap::{Args, Subcommand};

use super::{Connect, Named};

/// How a token gets a cluster in.
const TOKEN_HELP: &str = "\
A token lets a cluster in that no person here has approved:

  milan $ landbridge token create --uses 1 --expires 1h    # prints the token, this once
  rome  $ landbridge token store milan                     # asks for it, and shows it to milan at once

Both sides then say Trusted with the reason Token. The token itself is never sent: what is shown is a
proof that is good between these two clusters and in one session.";

#[derive(Debug, Args)]
#[command(after_help = TOKEN_HELP)]
pub(in crate::cli) struct Token {
    #[command(subcommand)]
    pub(in crate::cli) verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenVerb {
    /// Make a token and print it, this once: only its hash is kept
    Create(TokenCreate),
    /// List the tokens that were made here
    List(TokenList),
    /// Take tokens back; whoever used one stays accepted until landbridge deny
    Revoke(TokenRevoke),
    /// Store a token that another cluster gave us, read from standard input
    Store(Named),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenCreate {
    /// After how long it is worth nothing: 30m, 24h, 7d, or never
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    pub(in crate::cli) expires: Lifetime,
    /// How many clusters may use it: 1 to 1000, or any
    #[arg(long, value_name = "N", default_value = "1", value_parser = uses)]
    pub(in crate::cli) uses: Uses,
    /// What it is called in lists and logs [default: made up]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}

/// How long a token is worth something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Lifetime(pub(in crate::cli) Option<jiff::SignedDuration>);

/// How many clusters may use a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Uses(pub(in crate::cli) Option<u32>);

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenList {
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TokenRevoke {
    /// The names of the tokens
    #[arg(required = true)]
    pub(in crate::cli) names: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}

/// Reads for how long a token is worth something; days are 24 hours.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<i64>().ok());
    let parsed = match days {
        Some(days) if (1..=3650).contains(&days) => {
            Some(jiff::SignedDuration::from_hours(days * 24))
        }
        Some(_) => None,
        None => text.parse::<jiff::SignedDuration>().ok(),
    };
    let usable = |life: &jiff::SignedDuration| {
        life.is_positive() && *life <= jiff::SignedDuration::from_hours(3650 * 24)
    };
    let life = parsed.filter(usable);
    let life = life.ok_or_else(|| "write a duration like 30m, 24h or 7d, or never".to_owned())?;
    Ok(Lifetime(Some(life)))
}

fn uses(text: &str) -> Result<Uses, String> {
    if text == "any" {
        return Ok(Uses(None));
    }
    let number = text
        .parse::<u32>()
        .ok()
        .filter(|uses| (1..=1000).contains(uses));
    let number = number.ok_or_else(|| "write a number from 1 to 1000, or any".to_owned())?;
    Ok(Uses(Some(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_an_end_and_a_count_unless_told_otherwise() {
        let hours = |hours| Lifetime(Some(jiff::SignedDuration::from_hours(hours)));
        assert_eq!(lifetime("24h"), Ok(hours(24)));
        assert_eq!(lifetime("7d"), Ok(hours(168)));
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        for wrong in ["", "0s", "-1h", "soon", "0d", "99999999999d", "99999999h"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert_eq!(uses("1000"), Ok(Uses(Some(1000))));
        assert_eq!(uses("any"), Ok(Uses(None)));
        for wrong in ["", "0", "1001", "-1", "many"] {
            assert!(uses(wrong).is_err(), "{wrong}");
        }
    }
}
