//! Who is killed first where the memory of a node runs out: `oom_score_adj` (`proc_pid_oom_score_adj(5)`), as kubelet gives it.
//!
//! Source: Kubernetes, "Node out of memory behavior"; k8s.io/kubernetes/pkg/kubelet/qos, `GetContainerOOMScoreAdjust`.

use gantry_nodeagent_api::{ContainerConfig, ContainerRole, PodConfig, QosClass};

/// Of the agent: without it nothing on the node is mended.
pub const AGENT: i32 = -999;
/// Of a shim: its containers end with it.
pub const SHIM: i32 = -998;
const GUARANTEED: i32 = -997;
const BEST_EFFORT: i32 = 1000;
/// The least and the most of what asks for something: never as safe as what is guaranteed, nor the first to go.
const BURSTABLE: (u128, u128) = (2, 999);

/// Of a container, on a node with so many bytes of memory. The more it asks for, the more it may use before others are killed
/// for it. A sidecar outlives the containers that it stands beside.
pub fn score_adj(pod: &PodConfig, container: &ContainerConfig, node_bytes: u64) -> i32 {
    match pod.qos {
        QosClass::Guaranteed => return GUARANTEED,
        QosClass::BestEffort => return BEST_EFFORT,
        QosClass::Burstable => {}
    }
    let main = pod.containers.iter().filter(|c| c.role == ContainerRole::Main);
    let least = main.map(|c| c.memory_request_bytes).min().unwrap_or(0);
    let asked = match container.role {
        ContainerRole::Sidecar => container.memory_request_bytes.max(least),
        ContainerRole::Main | ContainerRole::Init => container.memory_request_bytes,
    };
    let share = u128::from(asked) * 1000 / u128::from(node_bytes.max(1));
    let (safest, first) = BURSTABLE;
    i32::try_from(1000_u128.saturating_sub(share).clamp(safest, first)).unwrap_or(BEST_EFFORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GI: u64 = 1 << 30;

    fn pod(qos: QosClass, containers: &[(ContainerRole, u64)]) -> PodConfig {
        let containers = containers
            .iter()
            .map(|(role, memory_request_bytes)| ContainerConfig {
                role: *role,
                memory_request_bytes: *memory_request_bytes,
                ..ContainerConfig::default()
            });
        PodConfig {
            qos,
            containers: containers.collect(),
            ..PodConfig::default()
        }
    }

    fn scores(pod: &PodConfig, node_bytes: u64) -> Vec<i32> {
        let all = pod.containers.iter();
        all.map(|c| score_adj(pod, c, node_bytes)).collect()
    }

    #[test]
    fn the_class_decides_and_within_burstable_the_request() {
        use ContainerRole::Main;
        let sizes = [
            (Main, 4 * GI),
            (Main, 0),
            (Main, 64 << 20),
            (Main, 16 * GI),
            (Main, u64::MAX),
        ];
        let burstable = pod(QosClass::Burstable, &sizes);
        assert_eq!(scores(&burstable, 16 * GI), [750, 999, 997, 2, 2]);
        assert_eq!(scores(&pod(QosClass::Guaranteed, &sizes[..1]), 16 * GI), [-997]);
        assert_eq!(scores(&pod(QosClass::BestEffort, &sizes[1..2]), 16 * GI), [1000]);
        assert_eq!(scores(&pod(QosClass::Burstable, &sizes[..2]), 0), [2, 999]);
    }

    #[test]
    fn a_sidecar_is_as_safe_as_those_that_it_stands_beside() {
        use ContainerRole::{Init, Main, Sidecar};
        let sizes = [
            (Init, GI),
            (Sidecar, 0),
            (Sidecar, 12 * GI),
            (Main, 8 * GI),
            (Main, 4 * GI),
        ];
        let pod = pod(QosClass::Burstable, &sizes);
        assert_eq!(scores(&pod, 16 * GI), [938, 750, 250, 500, 750]);
    }
}
