{{/* The labels of a part of the release: haulier.labels takes the root and the part's name. */}}
{{- define "haulier.labels" -}}
app.kubernetes.io/name: haulier
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- if .part }}
app.kubernetes.io/component: {{ .part }}
{{- end }}
{{- end -}}

{{- define "haulier.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "haulier.probes" -}}
livenessProbe:
  httpGet: {path: /health/live, port: http}
  initialDelaySeconds: 30
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /health, port: http}
  timeoutSeconds: 5
{{- end -}}

{{/* The pod of a worker: haulier.worker takes the root and its arguments. SIGTERM itself begins the drain, so there is no
     preStop hook. With an engine beside it, that is a native sidecar: it ends after the worker. */}}
{{- define "haulier.worker" -}}
{{- $worker := .root.Values.worker -}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $worker.terminationGracePeriodSeconds }}
{{- if eq $worker.engine "dind" }}
initContainers:
  - name: docker
    image: {{ $worker.dind.image | quote }}
    restartPolicy: Always
    args: [--host=unix:///run/docker/docker.sock]
    env:
      - {name: DOCKER_TLS_CERTDIR, value: ""}
    securityContext: {privileged: true}
    startupProbe:
      exec: {command: [docker, --host=unix:///run/docker/docker.sock, info]}
      failureThreshold: 30
    volumeMounts:
      - {name: socket, mountPath: /run/docker}
      - {name: images, mountPath: /var/lib/docker}
      - {name: data, mountPath: /var/lib/haulier}
{{- end }}
containers:
  - name: worker
    image: {{ include "haulier.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ .args | toJson }}
    envFrom:
      - configMapRef: {name: {{ .root.Release.Name }}}
    env:
      # A worker gets no address of the datastore.
      - name: HAULIER_BROKER_RABBITMQ_URL
        valueFrom: {secretKeyRef: {name: {{ .root.Values.secret }}, key: HAULIER_BROKER_RABBITMQ_URL}}
      - name: HAULIER_ENCRYPTION_KEY
        valueFrom: {secretKeyRef: {name: {{ .root.Values.secret }}, key: HAULIER_ENCRYPTION_KEY}}
      - {name: HAULIER_WORKER_ADDRESS, value: "0.0.0.0:8001"}
      - {name: HAULIER_WORKER_DATA, value: /var/lib/haulier/worker}
      {{- if eq $worker.engine "dind" }}
      - {name: HAULIER_RUNTIME_DOCKER_HOST, value: "unix:///run/docker/docker.sock"}
      {{- end }}
      - name: HAULIER_WORKER_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- range $queue, $slots := $worker.queues }}
      - {name: HAULIER_WORKER_QUEUES_{{ $queue }}, value: {{ $slots | quote }}}
      {{- end }}
      {{- range $name, $value := $worker.settings }}
      - {name: {{ $name }}, value: {{ $value | quote }}}
      {{- end }}
    ports:
      - {name: http, containerPort: 8001}
    {{- include "haulier.probes" . | nindent 4 }}
    resources: {{ $worker.resources | toJson }}
    volumeMounts:
      {{- if eq $worker.engine "dind" }}
      - {name: socket, mountPath: /run/docker}
      {{- else }}
      - {name: socket, mountPath: /var/run/docker.sock}
      {{- end }}
      # The same path inside and outside, so that the engine sees the worker's files.
      - {name: data, mountPath: /var/lib/haulier}
volumes:
  {{- if eq $worker.engine "dind" }}
  - {name: socket, emptyDir: {}}
  - {name: images, emptyDir: {sizeLimit: {{ $worker.dind.size }}}}
  - {name: data, emptyDir: {}}
  {{- else }}
  - name: socket
    hostPath: {path: /var/run/docker.sock, type: Socket}
  - name: data
    hostPath: {path: /var/lib/haulier, type: DirectoryOrCreate}
  {{- end }}
nodeSelector: {{ $worker.nodeSelector | toJson }}
tolerations: {{ $worker.tolerations | toJson }}
{{- end -}}
