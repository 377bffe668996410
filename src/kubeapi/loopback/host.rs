//! For whom a request is meant: a page in a browser whose name was made to lead to loopback (DNS
//! rebinding) says that name, and gets nothing.

use std::net::IpAddr;

use axum::http::{Request, header, uri::Authority};

/// Tells whether a request names this machine by its loopback address, or as localhost. One that
/// names nothing is no browser's.
pub(super) fn is_this_machine<B>(request: &Request<B>) -> bool {
    let headers = request.headers().get_all(header::HOST).iter();
    let named = headers.map(|value| Authority::try_from(value.as_bytes()).ok());
    let asked = request.uri().authority().cloned().map(Some);
    named.chain(asked).all(|authority| {
        authority.is_some_and(|authority| {
            let host = authority.host();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let address = bare.parse::<IpAddr>();
            host.eq_ignore_ascii_case("localhost")
                || address.is_ok_and(|address| address.to_canonical().is_loopback())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let asks = |uri: &str, host: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            is_this_machine(&request.body(()).unwrap())
        };
        for host in [
            "localhost",
            "LOCALHOST:5872",
            "127.0.0.1:5872",
            "127.8.9.1",
            "[::1]:5872",
        ] {
            assert!(asks("/version", Some(host)), "{host}");
            assert!(asks(&format!("https://{host}/version"), None), "{host}");
        }
        assert!(asks("/version", None));
        for host in [
            "evil",
            "evil:5872",
            "localhost.evil",
            "127.0.0.1.evil",
            "192.0.2.1",
            "0.0.0.0:5872",
            "[fe80::1]",
            "",
            "a b",
        ] {
            assert!(!asks("/version", Some(host)), "{host}");
        }
        assert!(!asks("https://evil/version", Some("localhost")));
        assert!(!asks("https://localhost/version", Some("evil")));
    }
}
