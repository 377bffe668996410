//! Which of the objects of one cluster stands for it, and whether all of them let it in.

use std::borrow::Borrow;

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{
    api::{ClusterId, ForeignCluster},
    controllers::{Context, peering_request::admitted},
    engine::policy::Trust,
};

/// Returns the object that stands for a cluster, of all that claim its id.
pub fn standing<T: Borrow<ForeignCluster>>(
    objects: impl IntoIterator<Item = T>,
    id: &ClusterId,
) -> Option<T> {
    let objects = objects.into_iter();
    objects
        .filter(|object| claims(object.borrow(), id))
        .min_by_key(|object| precedence(object.borrow()))
}

/// Decides whether a cluster may come in: what one of its objects denies no other one allows, and
/// the rest is said by the one that stands for it.
pub(in crate::controllers) fn verdict<T: Borrow<ForeignCluster>>(
    context: &Context,
    objects: &[T],
    id: &ClusterId,
) -> Option<Trust> {
    let present = standing(objects.iter().map(Borrow::borrow), id)?;
    Some(if is_denied(objects, id) {
        Trust::Refused
    } else {
        admitted(context, present)
    })
}

/// Whether one of the objects of a cluster denies it.
pub(in crate::controllers) fn is_denied<T: Borrow<ForeignCluster>>(
    objects: &[T],
    id: &ClusterId,
) -> bool {
    let mut objects = objects.iter().map(Borrow::borrow);
    objects.any(|object| claims(object, id) && object.spec.is_denied())
}

/// Which of several objects of one cluster stands for it, the least first: what is being taken down,
/// until it is gone, then the oldest.
pub(in crate::controllers) fn precedence(
    object: &ForeignCluster,
) -> (bool, Option<Timestamp>, String) {
    let leaves = object.metadata.deletion_timestamp.is_some() && !object.finalizers().is_empty();
    let made = object.creation_timestamp().map(|made| made.0);
    (!leaves, made, object.name_any())
}

/// Returns the id that an object claims.
pub fn claimed_id(object: &ForeignCluster) -> Option<ClusterId> {
    let identity = object.spec.cluster_identity.as_ref()?;
    identity.cluster_id.parse().ok()
}

/// Whether an object claims an id.
fn claims(object: &ForeignCluster, id: &ClusterId) -> bool {
    let identity = object.spec.cluster_identity.as_ref();
    identity.is_some_and(|identity| identity.cluster_id == id.as_str())
}
