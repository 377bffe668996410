//! Every label, annotation, finalizer, condition type and reason that we write.

/// The id of the cluster that an object stands for (Liqo's label).
pub const CLUSTER_ID: &str = "discovery.liqo.io/cluster-id";
/// How the cluster of a ForeignCluster was found (Liqo's label).
pub const DISCOVERY_TYPE: &str = "discovery.liqo.io/discovery-type";
/// The SearchDomain that a ForeignCluster was found through (Liqo's label).
pub const SEARCH_DOMAIN: &str = "discovery.liqo.io/searchdomain";
/// The remote cluster of a TunnelEndpoint (Liqo's label, a bare key).
pub const TUNNEL_CLUSTER_ID: &str = "clusterID";
/// Whether a NetworkConfig describes our network or the peer's: `local` or `remote`.
pub const NETWORK_SIDE: &str = "net.liqo.io/side";

/// Who made an object, on our definitions (<https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>).
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The version of [`MANAGED_BY`].
pub const VERSION: &str = "app.kubernetes.io/version";

/// When a ForeignCluster was last refreshed by discovery, in Unix seconds (Liqo's annotation).
pub const LAST_UPDATE: &str = "LastUpdate";
/// By what a Trusted cluster was let in, when it was not a person: a reason of condition Trusted.
pub const TRUSTED_BY: &str = "discovery.liqo.io/trusted-by";
/// Who wanted `spec.join` of a ForeignCluster, when it was not a person: [`POLICY`].
pub const JOINED_BY: &str = "discovery.liqo.io/joined-by";
/// What a ForeignCluster says of a cluster by JSON that makes way for one that a person wrote, until
/// that one is known to be the cluster's.
pub const HANDED_OVER: &str = "discovery.liqo.io/handed-over";
/// The policy of this cluster or of a SearchDomain, when the cluster was found.
pub const POLICY: &str = "Policy";
/// The cluster behind a virtual node (Liqo's annotation).
pub const NODE_CLUSTER_ID: &str = "cluster-id";
/// Which labels of a virtual node come from the peer's offer: their keys with commas between them.
pub const OFFERED_LABELS: &str = "discovery.liqo.io/offered-labels";

/// Keeps a ForeignCluster until its peering is taken down (Liqo's finalizer).
pub const FINALIZER_PEERED: &str = "foreigncluster.discovery.liqo.io/peered";
/// Keeps a TunnelEndpoint until its routes and rules are gone (Liqo's finalizer).
pub const FINALIZER_TUNNEL: &str = "liqo-gateway.liqo.io";

/// The taint that keeps pods off a virtual node unless they ask for it (Liqo's).
pub const VIRTUAL_NODE_TAINT: &str = "virtual-node.liqo.io/not-allowed";
/// The label that says that a node is virtual (Liqo's).
pub const VIRTUAL_NODE_TYPE: &str = "liqo.io/type";
/// The value of [`VIRTUAL_NODE_TYPE`] and of the older label `type`.
pub const VIRTUAL_NODE: &str = "virtual-node";

/// The one ClusterConfig that is read (Liqo's name).
pub const CLUSTER_CONFIG: &str = "liqo-configuration";
/// The namespace of our own namespaced objects, and Liqo's `guestNamespace`.
pub const NAMESPACE: &str = "liqo";
/// The Secret that holds the identity key when a real cluster keeps our state.
pub const IDENTITY_SECRET: &str = "landbridge-identity";
/// The Secret that holds the fleet secret where no file is named.
pub const FLEET_SECRET: &str = "landbridge-fleet";
/// The ConfigMap in which the daemon says who and where it is.
pub const DESCRIPTION: &str = "landbridge-status";
/// The Lease that the daemon renews where the API outlives it.
pub const HEARTBEAT: &str = "landbridge";
/// The namespace of node heartbeats (Kubernetes convention).
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";
/// Who we are as a field manager and as a reporter of events.
pub const MANAGER: &str = "landbridge";

/// Condition types of a ForeignCluster, in the order of the path from discovered to usable.
pub mod condition {
    /// An advertisement or a person named the cluster.
    pub const DISCOVERED: &str = "Discovered";
    /// One of its endpoints answered.
    pub const ENDPOINT_REACHABLE: &str = "EndpointReachable";
    /// The endpoint proved to hold the key behind the cluster id.
    pub const IDENTITY_VERIFIED: &str = "IdentityVerified";
    /// The identity is accepted here; the reason says by what.
    pub const TRUSTED: &str = "Trusted";
    /// We consume what the peer offers.
    pub const OUTGOING_PEERED: &str = "OutgoingPeered";
    /// The peer consumes what we offer.
    pub const INCOMING_PEERED: &str = "IncomingPeered";
    /// The tunnel has a fresh handshake and answers an echo.
    pub const NETWORK_READY: &str = "NetworkReady";
    /// An end uses the id without its key. It is only there while that is so.
    pub const IDENTITY_MISMATCH: &str = "IdentityMismatch";
    /// Everything that was asked for works.
    pub const READY: &str = "Ready";

    /// All of them, in that order.
    pub const ALL: [&str; 8] = [
        DISCOVERED,
        ENDPOINT_REACHABLE,
        IDENTITY_VERIFIED,
        TRUSTED,
        OUTGOING_PEERED,
        INCOMING_PEERED,
        NETWORK_READY,
        READY,
    ];
}

/// Condition types and reasons of a SearchDomain.
pub mod search_domain {
    /// The name servers answered to everything that was asked.
    pub const ANSWERED: &str = "Answered";
    /// All of it.
    pub const COMPLETE: &str = "Complete";
    /// Some questions were not answered; what was known before still holds.
    pub const INCOMPLETE: &str = "Incomplete";
    /// The domain lists more clusters than are followed.
    pub const TOO_MANY: &str = "TooMany";
    /// `spec.domain` is not a domain that can be asked for.
    pub const INVALID_DOMAIN: &str = "InvalidDomain";
}

/// Condition types and reasons of the ClusterConfig, which tells how this cluster itself does.
pub mod cluster_config {
    /// Clusters on the LAN are found, and find us, as far as the policy wants it.
    pub const LAN_DISCOVERY: &str = "LanDiscovery";
    /// It works on at least one interface.
    pub const WORKING: &str = "Working";
    /// The policy wants neither.
    pub const SWITCHED_OFF: &str = "SwitchedOff";
    /// No interface is up and allowed.
    pub const NO_INTERFACE: &str = "NoInterface";
    /// The interfaces that are up and allowed do not know multicast.
    pub const NO_MULTICAST: &str = "NoMulticast";
    /// Not even what we send ourselves comes back: something on this machine drops it.
    pub const MULTICAST_BLOCKED: &str = "MulticastBlocked";
    /// The same on some of the interfaces; on the others discovery works.
    pub const MULTICAST_PARTLY_BLOCKED: &str = "MulticastPartlyBlocked";
    /// Another program holds UDP port 5353 for itself.
    pub const PORT_TAKEN: &str = "PortTaken";
    /// It broke and is started again.
    pub const RESTARTING: &str = "Restarting";
    /// Our identity is on this machine only.
    pub const IDENTITY_UNIQUE: &str = "IdentityUnique";
    /// No other machine holds it.
    pub const UNIQUE: &str = "Unique";
    /// Another machine holds it: the data directory was copied.
    pub const DUPLICATE_IDENTITY: &str = "DuplicateIdentity";
}

/// Reasons of events on a ForeignCluster.
pub mod event {
    /// The cluster was found.
    pub const PEER_DISCOVERED: &str = "PeerDiscovered";
    /// Its advertisement is gone.
    pub const PEER_LOST: &str = "PeerLost";
    /// Another key answered at its address.
    pub const IDENTITY_MISMATCH: &str = "IdentityMismatch";
    /// A person has to decide.
    pub const APPROVAL_NEEDED: &str = "ApprovalNeeded";
    /// `spec.join` became true.
    pub const JOIN_REQUESTED: &str = "JoinRequested";
    /// The peer refused us.
    pub const JOIN_REFUSED: &str = "JoinRefused";
    /// Its offer was accepted.
    pub const OFFER_ACCEPTED: &str = "OfferAccepted";
    /// Its offer was refused.
    pub const OFFER_REFUSED: &str = "OfferRefused";
    /// No address range is free for it.
    pub const CIDR_CONFLICT: &str = "CIDRConflict";
    /// The tunnel works.
    pub const TUNNEL_UP: &str = "TunnelUp";
    /// The tunnel does not work any more.
    pub const TUNNEL_DOWN: &str = "TunnelDown";
    /// The peering was taken down.
    pub const PEER_LEFT: &str = "PeerLeft";
    /// A withdrawal is owed to a peer that cannot be reached.
    pub const REMOTE_CLEANUP_PENDING: &str = "RemoteCleanupPending";
}

/// Reasons of conditions and events, in CamelCase as Kubernetes asks.
pub mod reason {
    /// Found by multicast DNS on a LAN.
    pub const LAN: &str = "LAN";
    /// Found in a DNS domain.
    pub const WAN: &str = "WAN";
    /// Written by a person.
    pub const MANUAL: &str = "Manual";
    /// The peer came to us.
    pub const INCOMING_PEERING: &str = "IncomingPeering";
    /// Its advertisement is gone or has expired.
    pub const EXPIRED: &str = "Expired";
    /// An endpoint answered.
    pub const ANSWERED: &str = "Answered";
    /// No endpoint answered.
    pub const UNREACHABLE: &str = "Unreachable";
    /// What answered is not a peer endpoint.
    pub const INVALID_ANSWER: &str = "InvalidAnswer";
    /// The address may not be dialled.
    pub const ADDRESS_REFUSED: &str = "AddressRefused";
    /// The key of the handshake gives the id.
    pub const KEY_PROVEN: &str = "KeyProven";
    /// Another key answered at the address.
    pub const IDENTITY_MISMATCH: &str = "IdentityMismatch";
    /// It has our own identity: a clone of this machine, or ourselves.
    pub const OWN_IDENTITY: &str = "OwnIdentity";
    /// Another machine holds our identity: the data directory was copied.
    pub const DUPLICATE_IDENTITY: &str = "DuplicateIdentity";
    /// Another ForeignCluster stands for the same cluster.
    pub const DUPLICATE: &str = "Duplicate";
    /// What stands as the id of the cluster is none.
    pub const INVALID_ID: &str = "InvalidID";
    /// Nothing was tried yet.
    pub const PENDING: &str = "Pending";
    /// A person or an earlier decision set `spec.trustMode: Trusted`.
    pub const PINNED: &str = "Pinned";
    /// Both sides know the fleet secret.
    pub const FLEET_SECRET: &str = "FleetSecret";
    /// It showed a token that this cluster gave out, or knows the one that it gave us.
    pub const TOKEN: &str = "Token";
    /// A TLSA record that DNSSEC proves, in a SearchDomain that says TLSA, has its key.
    pub const TLSA: &str = "TLSA";
    /// It showed a certificate for its name in a SearchDomain that says WebPKI.
    pub const WEB_PKI: &str = "WebPKI";
    /// `authConfig.allowEmptyToken` lets everybody in unseen.
    pub const EMPTY_TOKEN_ALLOWED: &str = "EmptyTokenAllowed";
    /// A person has to decide.
    pub const APPROVAL_NEEDED: &str = "ApprovalNeeded";
    /// A person said no.
    pub const BLOCKED: &str = "Blocked";
    /// The peer waits for a person on its side.
    pub const WAITING_FOR_PEER: &str = "WaitingForPeer";
    /// The peer refused us.
    pub const REFUSED_BY_PEER: &str = "RefusedByPeer";
    /// `spec.join` is false.
    pub const NOT_JOINED: &str = "NotJoined";
    /// The peer has not asked for our resources.
    pub const NOT_REQUESTED: &str = "NotRequested";
    /// The session stands and the peer has not made its offer yet.
    pub const AWAITING_OFFER: &str = "AwaitingOffer";
    /// An offer was made and accepted.
    pub const PEERED: &str = "Peered";
    /// The offer was refused.
    pub const OFFER_REFUSED: &str = "OfferRefused";
    /// The offer waits for a person.
    pub const OFFER_PENDING: &str = "OfferPending";
    /// The peer took its offer back.
    pub const OFFER_WITHDRAWN: &str = "OfferWithdrawn";
    /// Nobody says where the peer is.
    pub const NO_ENDPOINT: &str = "NoEndpoint";
    /// The session is silent.
    pub const PEER_SILENT: &str = "PeerSilent";
    /// The echo came back through the tunnel.
    pub const TUNNEL_UP: &str = "TunnelUp";
    /// No echo came back yet.
    pub const TUNNEL_DOWN: &str = "TunnelDown";
    /// No tunnel is wanted.
    pub const TUNNEL_NOT_NEEDED: &str = "TunnelNotNeeded";
    /// The tunnel cannot be made on this machine; the message says what is missing.
    pub const TUNNEL_UNAVAILABLE: &str = "TunnelUnavailable";
    /// No free address range is left for the peer.
    pub const CIDR_CONFLICT: &str = "CIDRConflict";
    /// The peering is being taken down.
    pub const LEAVING: &str = "Leaving";
    /// What could not be withdrawn at the peer waits until it is seen again.
    pub const REMOTE_CLEANUP_PENDING: &str = "RemoteCleanupPending";
}
