# What people do with the Python client of Kubernetes, against the API of the kubeconfig given.
import sys
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException

config.load_kube_config(sys.argv[1])
custom = client.CustomObjectsApi()
where = ("discovery.lb.test", "v1alpha1", "lbclusters")
body = {"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster",
        "metadata": {"name": "rome"}, "spec": {"authUrl": "https://x"}}

assert client.VersionApi().get_code().major == "1"
made = custom.create_cluster_custom_object(*where, body)
assert made["spec"]["join"] is False
revision = made["metadata"]["resourceVersion"]
patched = custom.patch_cluster_custom_object(*where, "rome", {"spec": {"join": True}})
assert patched["spec"]["join"] is True
stream = watch.Watch().stream(custom.list_cluster_custom_object, *where, resource_version=revision, timeout_seconds=2)
assert [event["type"] for event in stream] == ["MODIFIED"]
fresh = custom.get_cluster_custom_object(*where, "rome")
fresh["spec"]["join"] = False
assert custom.replace_cluster_custom_object(*where, "rome", fresh)["metadata"]["generation"] == 3
status = custom.patch_cluster_custom_object_status(*where, "rome", {"status": {"ttl": 3}})
assert status["status"]["ttl"] == 3
try:
    custom.create_cluster_custom_object(*where, body)
    raise SystemExit("created twice")
except ApiException as error:
    assert error.status == 409, error
core = client.CoreV1Api()
core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"k": "v"}))
core.patch_namespaced_config_map("a", "default", {"data": {"l": "w"}})
assert core.read_namespaced_config_map("a", "default").data == {"k": "v", "l": "w"}
core.delete_namespaced_config_map("a", "default")
kinds = dynamic.DynamicClient(client.ApiClient())
api = kinds.resources.get(api_version="discovery.lb.test/v1alpha1", kind="LbCluster")
assert [item.metadata.name for item in api.get().items] == ["rome"]
applied = api.server_side_apply(body=dict(body, spec={"authUrl": "https://y"}), name="rome", field_manager="py", force_conflicts=True)
assert applied.spec.authUrl == "https://y"
custom.delete_cluster_custom_object(*where, "rome")
print("done")
