//! Tells at once when a link or an address of this machine changes (rtnetlink(7)).

use futures::{StreamExt, future, stream, stream::BoxStream};
use rtnetlink::MulticastGroup;

/// Returns a stream with an item whenever a link or an address changed.
///
/// Where netlink is not to be had the stream is silent: the links are looked at every few seconds
/// anyway.
pub(super) fn link_events() -> BoxStream<'static, ()> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    match rtnetlink::new_multicast_connection(&groups) {
        Ok((connection, _, messages)) => {
            // The connection is a future that has to be driven for as long as its messages are read.
            let driver = stream::once(connection).filter_map(|()| future::ready(None));
            stream::select(messages.map(|_| ()), driver)
                .chain(stream::pending())
                .boxed()
        }
        Err(error) => {
            tracing::warn!(%error, "Changes of network addresses are noticed late, without netlink");
            stream::pending().boxed()
        }
    }
}
