//! Examples of every command, as `--help` shows them.

pub const ALL: &str = "\
Examples:
  gantry up --detach                     start the control plane and this machine's node agent
  gantry image build kamailio sipp       build the images of the catalog's recipes
  gantry deploy sip-core                 run a network service from the catalog
  gantry scale pcscf --replicas 4        more instances, under load
  gantry resize pcscf --cpu 400m         bigger instances, without a restart
  gantry upgrade pcscf --set configVersion=2
  gantry rollback pcscf
  gantry receipt                         what each change did, and what it lost
  gantry down --purge                    leave nothing behind";

pub const UP: &str = "\
Examples:
  gantry up --detach
  gantry up --detach --listen 127.0.0.1:7443 --pod-cidr 10.90.0.0/16 --service-cidr 10.91.0.0/16
  gantry up --detach --reserved-cpus 0-1  two CPUs for the host's own work
  gantry up --detach --reserved-memory 2Gi  as much memory for it; pods together have the rest
  gantry up --detach --data-dir ./lab     a second Gantry beside the first, on another port";

pub const DOWN: &str = "\
Examples:
  gantry down                        all stops; `gantry up` starts again what was deployed
  gantry down --keep-pods            pods and their packets go on without control plane and agent
  gantry down --purge                nothing is left of it";

pub const BACKUP: &str = "\
Examples:
  gantry backup /root/gantry.backup
  gantry backup ./lab.backup --data-dir ./lab";

pub const RESTORE: &str = "\
Examples:
  gantry down --keep-pods            first: over a running control plane nothing is restored
  gantry restore /root/gantry.backup
  gantry up --detach                 pods that run are taken over";

pub const STATUS: &str = "\
Examples:
  gantry status
  gantry status -o wide              pods with address and memory
  gantry status -o json";

pub const DEPLOY: &str = "\
Examples:
  gantry deploy sip-core                                          a service of the catalog
  gantry deploy pcscf --name edge --peer as=as --set workers=2    one function
  gantry deploy ./lab.yaml --timeout 120                          manifests of a file
  gantry deploy sip-core --queue                                  wait for room";

pub const UNDEPLOY: &str = "\
Examples:
  gantry undeploy sip-core
  gantry undeploy sip-core --drain   calls end before instances stop
  gantry undeploy load sip-core -o json";

pub const SCALE: &str = "\
Examples:
  gantry scale pcscf --replicas 4
  gantry scale pcscf --replicas 2 --timeout 600   instances that go drain first
  gantry scale pcscf --replicas 40 --queue        as many as fit now, the others when there is room";

pub const RESIZE: &str = "\
Examples:
  gantry resize pcscf --cpu 400m --memory 192Mi   all instances of a function
  gantry resize upf --cpu 4                       exclusive CPUs: whole ones
  gantry resize pcscf-x2c4f --cpu 400m            one pod";

pub const UPGRADE: &str = "\
Examples:
  gantry upgrade pcscf --version 1.1.0
  gantry upgrade pcscf --set configVersion=2
  gantry upgrade pcscf --version 1.1.0 --catalog ./my-catalog";

pub const ROLLBACK: &str = "\
Examples:
  gantry rollback pcscf
  gantry rollback pcscf --to 3f9a0c11de";

pub const PLAN: &str = "\
Examples:
  gantry plan -f ./lab.yaml
  gantry plan -f - -o json
  gantry plan -f ./lab.yaml --catalog ./my-catalog";

pub const EXPLAIN: &str = "\
Examples:
  gantry explain pcscf-x2c4f
  gantry explain pcscf-x2c4f -o json";

pub const RECEIPT: &str = "\
Examples:
  gantry receipt                     all operations
  gantry receipt pcscf-3             one of them, pod by pod
  gantry receipt -o json";

pub const CATALOG: &str = "\
Examples:
  gantry catalog ls
  gantry catalog show pcscf
  gantry catalog verify ./my-catalog";

pub const IMAGE: &str = "\
Examples:
  gantry image build kamailio sipp
  gantry image build ./images/upf.yaml --no-cache
  gantry image import ./upf.tar --name upf:1.0
  gantry image ls
  gantry image inspect kamailio:5.6.3
  gantry image rm sipp:3.6.1";

pub const GET: &str = "\
Examples:
  gantry get
  gantry get volte
  gantry get volte -o wide            its pods too, with address and memory";

pub const TOP: &str = "\
Examples:
  gantry top
  gantry top volte --interval 10      over ten seconds
  gantry top s-cscf -o wide           each pod";

pub const LOGS: &str = "\
Examples:
  gantry logs volte -f                all its pods, each line with its pod
  gantry logs s-cscf --tail 20
  gantry logs pcscf-x2c4f
  gantry logs pcscf-x2c4f -f --tail 20
  gantry logs pcscf-x2c4f --previous  the run before the last restart";

pub const EXEC: &str = "\
Examples:
  gantry exec pcscf-x2c4f -- cat /etc/kamailio/kamailio.cfg
  gantry exec -it pcscf-x2c4f -- /bin/sh";

pub const PORT_FORWARD: &str = "\
Examples:
  gantry port-forward pcscf-x2c4f 9090
  gantry port-forward pcscf-x2c4f 8080:80 :9090   port 80 here as 8080, and 9090 on any free port";

pub const KUBECONFIG: &str = "\
Examples:
  gantry kubeconfig > lab.kubeconfig
  gantry kubeconfig --data-dir ./lab
  gantry kubeconfig --user alice > alice.kubeconfig";

pub const CERTS: &str = "\
Examples:
  gantry certs list
  gantry certs revoke user-alice     Alice's laptop is lost
  gantry certs revoke admin          the kubeconfig got about: there is a new one at once";

pub const COMPLETION: &str = "\
Examples:
  gantry completion bash > /etc/bash_completion.d/gantry
  gantry completion zsh > ~/.zfunc/_gantry";

pub const SERVICE: &str = "\
Examples:
  gantry service graph volte
  gantry service graph volte --svg > volte.svg
  gantry service graph ims -o json";
