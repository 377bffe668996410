//! Reading what the other end sends: bounded in size, time and depth.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

/// How deep JSON may be nested.
pub const DEPTH_LIMIT: usize = 32;

/// Indicates a body that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Indicates a body beyond the limit.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Indicates a body that did not arrive in time.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// Indicates a body that broke off.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// Indicates JSON that is nested too deeply.
    #[error("the body is nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    /// Indicates a body that is not the JSON that was expected.
    #[error("the body is not the expected JSON: {0}")]
    NotJson(String),
}

/// Reads a whole body.
pub async fn read(body: Body, limit: usize, within: Duration) -> Result<Bytes, BodyError> {
    let reading = async {
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| BodyError::Broken(error.to_string()))?;
            if bytes.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(bytes))
    };
    tokio::time::timeout(within, reading)
        .await
        .unwrap_or(Err(BodyError::TooSlow(within)))
}

/// Parses JSON after its depth was counted.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    if depth(bytes) > DEPTH_LIMIT {
        return Err(BodyError::TooDeep);
    }
    serde_json::from_slice(bytes).map_err(|error| BodyError::NotJson(error.to_string()))
}

/// Counts how deep arrays and objects are nested, without building anything.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_or_not_at_all() {
        let read = async |body: Body| read(body, 4, WITHIN).await;
        assert_eq!(read(Body::from("1234")).await, Ok(Bytes::from("1234")));
        assert_eq!(read(Body::from("12345")).await, Err(BodyError::TooLarge(4)));
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("12"));
        let endless = Body::from_stream(endless);
        assert_eq!(read(endless).await, Err(BodyError::TooLarge(4)));
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(silent).await, Err(BodyError::TooSlow(WITHIN)));
    }

    #[test]
    fn deep_json_is_refused_before_it_is_built() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse::<Value>(nested(32).as_bytes()).is_ok());
        assert_eq!(
            parse::<Value>(nested(33).as_bytes()),
            Err(BodyError::TooDeep)
        );
        assert_eq!(
            parse::<Value>(nested(1_000_000).as_bytes()),
            Err(BodyError::TooDeep)
        );
        let text = format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(99), "{".repeat(99));
        assert!(parse::<Value>(text.as_bytes()).is_ok());
    }
}
