//! The table of addresses and of URLs.

use super::*;

fn own() -> OwnNetworks {
    OwnNetworks {
        pod_cidr: Some("10.244.0.0/16".parse().unwrap()),
        service_cidr: Some("10.96.0.0/12".parse().unwrap()),
        on_link: vec![
            "192.168.7.0/24".parse().unwrap(),
            "fd12:3456::/64".parse().unwrap(),
        ],
        said: Vec::new(),
        addresses: vec!["192.168.7.1".parse().unwrap()],
        api_ports: vec![6443],
        loopback_allowed: false,
    }
}

#[test]
fn only_addresses_that_can_be_another_cluster_are_dialled() {
    use DiscoveryType::{Lan, Manual, Wan};
    let table: &[(&str, DiscoveryType, Result<(), Refusal>)] = &[
        ("192.168.7.2:5870", Lan, Ok(())),
        ("192.168.7.2:443", Lan, Ok(())),
        ("192.168.8.2:5870", Lan, Err(Refusal::OffLink)),
        ("192.168.8.2:5870", Wan, Ok(())),
        ("8.8.8.8:5870", Lan, Err(Refusal::OffLink)),
        ("8.8.8.8:5870", Manual, Ok(())),
        ("192.168.7.255:5870", Lan, Err(Refusal::Broadcast)),
        ("192.168.7.1:5870", Lan, Err(Refusal::OwnAddress)),
        ("192.168.7.1:5870", Manual, Err(Refusal::OwnAddress)),
        ("192.168.7.2:6443", Lan, Ok(())),
        ("192.168.7.1:6443", Manual, Err(Refusal::Port)),
        ("0.0.0.0:5870", Manual, Err(Refusal::Unspecified)),
        ("0.1.2.3:5870", Manual, Err(Refusal::Unspecified)),
        ("127.0.0.1:5870", Manual, Err(Refusal::Loopback)),
        ("127.9.9.9:5870", Lan, Err(Refusal::Loopback)),
        ("224.0.0.251:5870", Lan, Err(Refusal::Multicast)),
        ("255.255.255.255:5870", Lan, Err(Refusal::Broadcast)),
        ("250.0.0.1:5870", Manual, Err(Refusal::Reserved)),
        ("169.254.169.254:80", Manual, Err(Refusal::Metadata)),
        ("169.254.1.1:5870", Lan, Err(Refusal::LinkLocal)),
        ("10.244.3.4:5870", Wan, Err(Refusal::OwnRange)),
        ("10.96.0.1:443", Manual, Err(Refusal::OwnRange)),
        ("10.112.0.1:443", Manual, Ok(())),
        ("[fd12:3456::2]:5870", Lan, Ok(())),
        ("[fd12:9999::2]:5870", Lan, Err(Refusal::OffLink)),
        ("[fd12:9999::2]:5870", Wan, Ok(())),
        ("[fe80::2]:5870", Lan, Err(Refusal::LinkLocal)),
        ("[fe80::2%3]:5870", Lan, Ok(())),
        ("[::]:5870", Manual, Err(Refusal::Unspecified)),
        ("[::1]:5870", Manual, Err(Refusal::Loopback)),
        ("[ff02::fb]:5870", Lan, Err(Refusal::Multicast)),
        ("[fd00:ec2::254]:80", Wan, Err(Refusal::Metadata)),
        ("[::ffff:127.0.0.1]:5870", Manual, Err(Refusal::Loopback)),
        ("[::ffff:169.254.169.254]:80", Wan, Err(Refusal::Metadata)),
        ("[::ffff:192.168.7.2]:5870", Lan, Ok(())),
        ("[::127.0.0.1]:5870", Manual, Err(Refusal::Reserved)),
        ("[64:ff9b::7f00:1]:5870", Wan, Err(Refusal::Reserved)),
        ("[2002:7f00:1::]:5870", Wan, Err(Refusal::Reserved)),
        ("[2001:0:7f00:1::]:5870", Wan, Err(Refusal::Reserved)),
        ("[fec0::1]:5870", Wan, Err(Refusal::Reserved)),
        ("[2a00::1]:5870", Wan, Ok(())),
    ];
    for (address, source, expected) in table {
        let judged = judge(address.parse().unwrap(), *source, &own());
        assert_eq!(judged, *expected, "{address} from {source:?}");
    }
    for port in [0, 22, 25, 53, 2379, 2380, 10250] {
        let address = SocketAddr::new("192.168.7.2".parse().unwrap(), port);
        assert_eq!(judge(address, Lan, &own()), Err(Refusal::Port), "{port}");
    }
}

#[test]
fn this_machine_is_dialled_only_when_a_person_names_it_and_the_setting_allows() {
    let own = OwnNetworks {
        loopback_allowed: true,
        ..own()
    };
    for address in ["127.0.0.1:5870", "[::1]:5870", "192.168.7.1:5870"] {
        let address = address.parse().unwrap();
        assert_eq!(judge(address, DiscoveryType::Manual, &own), Ok(()));
        assert!(judge(address, DiscoveryType::Lan, &own).is_err());
        assert!(judge(address, DiscoveryType::Wan, &own).is_err());
        assert!(judge(address, DiscoveryType::IncomingPeering, &own).is_err());
    }
    let api = "127.0.0.1:6443".parse().unwrap();
    assert_eq!(judge(api, DiscoveryType::Manual, &own), Err(Refusal::Port));
    let metadata = "169.254.169.254:80".parse().unwrap();
    assert!(judge(metadata, DiscoveryType::Manual, &own).is_err());
}

#[test]
fn a_url_is_a_host_and_a_port_and_nothing_else() {
    for (text, expected) in [
        ("https://10.0.0.2:8443", "https://10.0.0.2:8443"),
        ("https://10.0.0.2", "https://10.0.0.2:443"),
        ("HTTPS://Auth.Example.COM./", "https://auth.example.com:443"),
        ("https://[FD00::1]:5870/", "https://[fd00::1]:5870"),
        ("https://[fd00::1]", "https://[fd00::1]:443"),
        ("https://a_b.c:1", "https://a_b.c:1"),
    ] {
        let url: AuthUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), expected);
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    for (text, expected) in [
        ("http://10.0.0.2", UrlError::Scheme),
        ("10.0.0.2:5870", UrlError::Scheme),
        ("fake://x", UrlError::Scheme),
        ("https:/ä", UrlError::Scheme),
        ("https://user@host", UrlError::TooMuch),
        ("https://user:secret@host", UrlError::TooMuch),
        ("https://host/path", UrlError::TooMuch),
        ("https://host//", UrlError::TooMuch),
        ("https://host?x", UrlError::TooMuch),
        ("https://host#x", UrlError::TooMuch),
        ("https://host\\x", UrlError::TooMuch),
        ("https://host:0", UrlError::Port),
        ("https://host:65536", UrlError::Port),
        ("https://host:+80", UrlError::Port),
        ("https://host:", UrlError::Port),
        ("https://fd00::1", UrlError::Port),
        ("https://", UrlError::Host),
        ("https://:80", UrlError::Host),
        ("https://a..b", UrlError::Host),
        ("https://a b", UrlError::Host),
        ("https://a%00b", UrlError::Host),
        ("https://2130706433", UrlError::Host),
        ("https://0x7f000001", UrlError::Host),
        ("https://0177.0.0.1", UrlError::Host),
        ("https://127.1", UrlError::Host),
        ("https://127.0.0.0x1", UrlError::Host),
        ("https://[fe80::1%eth0]:5870", UrlError::Host),
        ("https://[127.0.0.1]:5870", UrlError::Host),
    ] {
        assert_eq!(text.parse::<AuthUrl>(), Err(expected), "{text}");
    }
}
