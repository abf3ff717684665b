// Package process knows who is behind a kernel event: the process and its ancestors, the cgroup and so the container
// and pod, the pod's service account, and which AWS identity a process says it has. It opens no credential file and keeps
// no secret: of an environment it keeps listed names' values only, and of secrets that they are there. It judges
// nothing; sensor/node feeds it and asks it. It is the only package of the sensor that imports client-go.
package process
