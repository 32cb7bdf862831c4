//! What people are told of a pod's life on its node: read off the change of its status, with the reasons and words of Kubernetes.

use k8s_openapi::api::core::v1::{self as k8s, ContainerState, ContainerStatus, Pod, PodStatus};

use super::{meta, pods};

/// Condition of a pod: it goes on, and something is wrong with it. Each line of its message is a reason and a sentence.
pub const TROUBLE: &str = "gantry.dev/Trouble";

/// Reason of a pod that its node has ended for the space that it takes, or for want of space.
pub const EVICTED: &str = "Evicted";

/// Reason of a container that is being ended.
const KILLING: &str = "Killing";

/// One thing to tell.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// True for `Warning`.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What is new in the pod's status, compared with what it was.
pub fn since(before: Option<&PodStatus>, pod: &Pod) -> Vec<Told> {
    let Some(after) = &pod.status else {
        return Vec::new();
    };
    let mut told = Vec::new();
    for now in containers(after) {
        let was = before.and_then(|b| containers(b).find(|c| c.name == now.name));
        container(pod, was, now, &mut told);
    }
    let known: Vec<(&str, &str)> = before.map(troubles).unwrap_or_default();
    let new = troubles(after)
        .into_iter()
        .filter(|trouble| !known.contains(trouble));
    told.extend(new.map(|(reason, message)| tell(reason != KILLING, reason, message.to_owned())));
    told.extend(sandbox(before, after));
    for (warning, reason) in [(false, "DeadlineExceeded"), (true, EVICTED)] {
        let is = |status: &PodStatus| status.reason.as_deref() == Some(reason);
        if is(after) && !before.is_some_and(is) {
            let message = after.message.clone().unwrap_or_default();
            told.push(tell(warning, reason, message));
        }
    }
    told
}

/// Reasons and sentences of the pod's troubles.
fn troubles(status: &PodStatus) -> Vec<(&str, &str)> {
    let conditions = status.conditions.iter().flatten();
    let own = conditions.filter(|c| c.type_ == TROUBLE && c.status == "True");
    let lines = own.flat_map(|c| c.message.as_deref().unwrap_or_default().lines());
    lines.filter_map(|line| line.split_once(": ")).collect()
}

/// What keeps a pod of which nothing ran yet from being made, if that is new and no container's affair.
fn sandbox(before: Option<&PodStatus>, after: &PodStatus) -> Option<Told> {
    let why = |status: &PodStatus| status.message.clone().unwrap_or_default();
    let now = why(after);
    let made = |c: &ContainerStatus| {
        c.container_id.is_some()
            || !["ContainerCreating", "PodInitializing"].contains(&waiting(c.state.as_ref()).0)
    };
    if now.is_empty() || now.starts_with("waits for ") || before.map(why) == Some(now.clone()) {
        return None;
    }
    let message = format!("Failed to create pod sandbox: {now}");
    (!containers(after).any(made)).then(|| tell(true, "FailedCreatePodSandBox", message))
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

fn tell(warning: bool, reason: &str, message: String) -> Told {
    Told {
        warning,
        reason: reason.to_owned(),
        message,
    }
}

fn container(pod: &Pod, was: Option<&ContainerStatus>, now: &ContainerStatus, told: &mut Vec<Told>) {
    let name = &now.name;
    let known = was.and_then(|c| c.container_id.as_ref());
    let new_run = now.container_id.is_some() && known != now.container_id.as_ref();
    let failed = start_error(now).filter(|_| new_run);
    if new_run {
        let pulled = format!("Container image {:?} already present on machine", now.image);
        told.push(tell(false, "Pulled", pulled));
        told.push(tell(false, "Created", format!("Created container: {name}")));
    }
    match failed {
        Some(why) => told.push(tell(true, "Failed", format!("Error: {why}"))),
        None if new_run => told.push(tell(false, "Started", format!("Started container {name}"))),
        None => {}
    }
    if pods::is_stopping(pod) && was.is_some_and(runs) && !runs(now) {
        told.push(tell(false, KILLING, format!("Stopping container {name}")));
    }
    let (reason, message) = waiting(now.state.as_ref());
    if (reason, message) != waiting(was.and_then(|c| c.state.as_ref())) || new_run {
        told.extend(waits(pod, now, reason, message));
    }
}

fn runs(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn start_error(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref();
    let last = container.last_state.as_ref().filter(|_| !runs(container));
    let ended = |s: Option<&ContainerState>| s.and_then(|s| s.terminated.clone());
    let end = ended(state).or_else(|| ended(last))?;
    (end.reason.as_deref() == Some("StartError")).then(|| end.message.unwrap_or_default())
}

fn waiting(state: Option<&ContainerState>) -> (&str, &str) {
    let waiting = state.and_then(|s| s.waiting.as_ref());
    let text = |t: fn(&k8s::ContainerStateWaiting) -> &Option<String>| {
        waiting.and_then(|w| t(w).as_deref()).unwrap_or_default()
    };
    (text(|w| &w.reason), text(|w| &w.message))
}

fn waits(pod: &Pod, container: &ContainerStatus, reason: &str, message: &str) -> Option<Told> {
    let m = &pod.metadata;
    let (name, image) = (&container.name, &container.image);
    let full = || format!("{}_{}({})", meta::name(m), meta::namespace(m), meta::uid(m));
    Some(match reason {
        "CrashLoopBackOff" => tell(
            true,
            "BackOff",
            format!("Back-off restarting failed container {name} in pod {}", full()),
        ),
        "ErrImagePull" => {
            let said = pod.status.as_ref().and_then(|s| s.message.as_deref());
            let why = said.map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!(
                "Failed to pull image {image:?}{why}; images are never pulled: bring it with `gantry image import`"
            );
            tell(true, "Failed", message)
        }
        "ImagePullBackOff" => tell(false, "BackOff", format!("Back-off pulling image {image:?}")),
        "CreateContainerConfigError" | "CreateContainerError" => {
            tell(true, "Failed", format!("Error: {message}"))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(container: Value) -> Pod {
        let status = json!({"phase": "Running", "containerStatuses": [container]});
        let metadata = json!({"name": "p", "namespace": "d", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}, "status": status}))
            .unwrap()
    }

    fn container(id: Option<&str>, state: Value, last: Value) -> Value {
        json!({"name": "c", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": id, "state": state, "lastState": last})
    }

    fn told(before: &Pod, after: &Pod) -> Vec<String> {
        let all = since(before.status.as_ref(), after).into_iter();
        all.map(|t| format!("{}{} {}", if t.warning { "!" } else { "" }, t.reason, t.message))
            .collect()
    }

    #[test]
    fn a_life_is_told_as_kubernetes_tells_it() {
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        let new = pod(container(None, creating, json!({})));
        let up = pod(container(Some("g://0"), json!({"running": {}}), json!({})));
        let begun = [
            "Pulled Container image \"i:1\" already present on machine",
            "Created Created container: c",
            "Started Started container c",
        ];
        assert_eq!(told(&new, &up), begun);
        assert!(told(&up, &up).is_empty());
        let backs_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1s"}});
        let end = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let down = pod(container(Some("g://0"), backs_off, end));
        assert_eq!(
            told(&up, &down),
            ["!BackOff Back-off restarting failed container c in pod p_d(u)"]
        );
        let again = pod(container(Some("g://1"), json!({"running": {}}), json!({})));
        assert_eq!(told(&down, &again), begun);
        let mut leaving = pod(container(
            Some("g://1"),
            json!({"terminated": {"exitCode": 0}}),
            json!({}),
        ));
        leaving.metadata.deletion_timestamp = Some(meta::time(1));
        assert_eq!(told(&again, &leaving), ["Killing Stopping container c"]);
        let wrong =
            json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "cannot run `x`"}});
        let wrong = pod(container(Some("g://0"), wrong, json!({})));
        assert_eq!(told(&new, &wrong)[2], "!Failed Error: cannot run `x`");
        let missing = pod(container(
            None,
            json!({"waiting": {"reason": "ErrImagePull"}}),
            json!({}),
        ));
        let way = "; images are never pulled: bring it with `gantry image import`";
        let failed = "!Failed Failed to pull image \"i:1\"";
        assert_eq!(told(&new, &missing), [format!("{failed}{way}")]);
        let mut why = missing.clone();
        why.status.as_mut().unwrap().message = Some("no image i:1".to_owned());
        assert_eq!(told(&new, &why)[0], format!("{failed}: no image i:1{way}"));
        let mut stuck = new.clone();
        stuck.status.as_mut().unwrap().message = Some("cannot make network namespace".to_owned());
        let word = "!FailedCreatePodSandBox Failed to create pod sandbox: cannot make network namespace";
        assert_eq!(told(&new, &stuck), [word]);
        assert!(told(&stuck, &stuck).is_empty() && told(&stuck, &up).len() == 3);
    }

    #[test]
    fn a_trouble_is_told_once_however_long_it_lasts() {
        let with = |message: &str| {
            let mut pod = pod(container(Some("g://0"), json!({"running": {}}), json!({})));
            let condition = json!({"type": TROUBLE, "status": "True", "message": message});
            pod.status.as_mut().unwrap().conditions = Some(vec![serde_json::from_value(condition).unwrap()]);
            pod
        };
        let up = pod(container(Some("g://0"), json!({"running": {}}), json!({})));
        let one = with("PidsLimit: a: too many");
        let two = with("PidsLimit: a: too many\nUnhealthy: Liveness probe failed: x");
        assert_eq!(told(&up, &one), ["!PidsLimit a: too many"]);
        assert_eq!(told(&one, &two), ["!Unhealthy Liveness probe failed: x"]);
        let killed = with("Killing: Container a failed liveness probe, will be restarted");
        let word = "Killing Container a failed liveness probe, will be restarted";
        assert_eq!(told(&up, &killed), [word]);
        assert!(told(&two, &one).is_empty() && told(&one, &up).is_empty());
    }
}
