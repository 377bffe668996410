//! The embedded Kubernetes API: the same objects to kube clients and kubectl, without a cluster.
