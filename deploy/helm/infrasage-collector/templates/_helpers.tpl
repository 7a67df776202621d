{{/* Kubernetes takes a Service only under a name of letters, digits and "-" that begins with a letter. */}}
{{- define "collector.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $release) -}}
{{- fail (printf "the release's name, %s, must begin with a letter: it becomes the name of a Service" .Release.Name) -}}
{{- end -}}
{{- if contains .Chart.Name $release -}}
{{- $release | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" $release .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Fails where values contradict each other, which neither the schema of the values nor Kubernetes' own schemas notice. */}}
{{- define "collector.check" -}}
{{- $elsewhere := dict
  "host" "" "data_dir" "" "http.port" "" "http.otlp_port" "" "grpc.port" "" "writer.port" ""
  "shutdown.lame_duck_s" "shutdown.lameDuckS" "shutdown.timeout_s" "shutdown.timeoutS"
  "tls.cert_file" "tls.secret" "tls.key_file" "tls.secret" "tls.client_ca_file" "tls.clientCaSecret"
  "kafka.bootstrap" "kafka.bootstrap" "kafka.security" "kafka.security" "kafka.sasl_mechanism" "kafka.saslMechanism"
  "kafka.username" "kafka.username" "kafka.password" "kafka.passwordSecret" "kafka.password_file" "kafka.passwordSecret"
  "kafka.ca_file" "kafka.caSecret"
  "clickhouse.url" "clickhouse.url" "clickhouse.user" "clickhouse.user" "clickhouse.database" "clickhouse.database"
  "clickhouse.cluster" "clickhouse.cluster" "clickhouse.password" "clickhouse.passwordSecret"
  "clickhouse.password_file" "clickhouse.passwordSecret" "clickhouse.ca_file" "clickhouse.caSecret"
  "gateway.workers" "gateway.workers" "limits.gateways" "gateway.autoscaling.maxReplicas" "limits.redis_url" "redis.url"
  "tenants.keys_file" "keys.secret" "tenants.anonymous" "keys.anonymous"
  "store.http_host" "single.clickhouseHttp" "store.http_port" "single.clickhouseHttp"
-}}
{{- range $section, $settings := .Values.settings -}}
{{- $keys := list $section -}}
{{- if kindIs "map" $settings -}}
{{- $keys = list -}}
{{- range $name, $_ := $settings -}}{{- $keys = append $keys (printf "%s.%s" $section $name) -}}{{- end -}}
{{- end -}}
{{- range $key := $keys -}}
{{- if hasKey $elsewhere $key -}}
{{- $place := get $elsewhere $key -}}
{{- fail (printf "settings.%s cannot be set: %s" $key (ternary (printf "the value %s of the chart is for it" $place) "the chart needs its own value" (ne $place ""))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $scaling := .Values.gateway.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "gateway.autoscaling.minReplicas is %d, more than maxReplicas, %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.tls.clientCaSecret.name (not .Values.tls.secret) -}}
{{- fail "tls.clientCaSecret is given without tls.secret: nothing would ask clients for a certificate" -}}
{{- end -}}
{{- if not (hasPrefix "SASL" .Values.kafka.security) -}}
{{- range $name, $value := dict "kafka.username" .Values.kafka.username "kafka.passwordSecret" .Values.kafka.passwordSecret.name -}}
{{- if $value -}}
{{- fail (printf "%s is given, and kafka.security is %s, which has no users: use SASL_SSL or SASL_PLAINTEXT" $name $.Values.kafka.security) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.kafka.caSecret.name (not (hasSuffix "SSL" .Values.kafka.security)) -}}
{{- fail (printf "kafka.caSecret is given, and kafka.security is %s, which has no TLS: use SSL or SASL_SSL" .Values.kafka.security) -}}
{{- end -}}
{{- if eq .Values.mode "single" -}}
{{- range $name, $value := dict "kafka.bootstrap" .Values.kafka.bootstrap "clickhouse.url" .Values.clickhouse.url "redis.url" .Values.redis.url -}}
{{- if $value -}}
{{- fail (printf "%s is %s, and mode single embeds the log and the store: leave it empty, or use mode distributed" $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "collector.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "collector.fullname" .) -}}
{{- end -}}

{{/* (dict "root" $ "component" NAME) */}}
{{- define "collector.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "collector.labels" -}}
{{ include "collector.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* A value as the environment has it: a list or a map as JSON, and no 1e+06 for a large whole number. */}}
{{- define "collector.text" -}}
{{- if or (kindIs "map" .) (kindIs "slice" .) -}}
{{- toJson . | quote -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- printf "%.0f" . | quote -}}
{{- else -}}
{{- toString . | quote -}}
{{- end -}}
{{- end -}}

{{- define "collector.env" -}}
{{- include "collector.check" . -}}
- {name: INFRASAGE_HOST, value: "0.0.0.0"}
- {name: INFRASAGE_SHUTDOWN__LAME_DUCK_S, value: {{ include "collector.text" .Values.shutdown.lameDuckS }}}
- {name: INFRASAGE_SHUTDOWN__TIMEOUT_S, value: {{ include "collector.text" .Values.shutdown.timeoutS }}}
{{- if .Values.tls.secret }}
- {name: INFRASAGE_TLS__CERT_FILE, value: /etc/infrasage/tls/tls.crt}
- {name: INFRASAGE_TLS__KEY_FILE, value: /etc/infrasage/tls/tls.key}
{{- if .Values.tls.clientCaSecret.name }}
- {name: INFRASAGE_TLS__CLIENT_CA_FILE, value: {{ printf "/etc/infrasage/clients/%s" .Values.tls.clientCaSecret.key | quote }}}
{{- end }}
{{- end }}
{{- range $section, $settings := .Values.settings }}
{{- if and (kindIs "map" $settings) (ne $section "plans") }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}{{/* null: the setting's own default */}}
- {name: {{ printf "INFRASAGE_%s__%s" (upper $section) (upper $name) }}, value: {{ include "collector.text" $value }}}
{{- end }}
{{- end }}
{{- else if not (kindIs "invalid" $settings) }}
- {name: {{ printf "INFRASAGE_%s" (upper $section) }}, value: {{ include "collector.text" $settings }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "collector.kafkaEnv" -}}
- {name: INFRASAGE_KAFKA__BOOTSTRAP, value: {{ required "kafka.bootstrap is needed: HOST:PORT of all brokers" .Values.kafka.bootstrap | quote }}}
- {name: INFRASAGE_KAFKA__SECURITY, value: {{ .Values.kafka.security }}}
{{- if hasPrefix "SASL" .Values.kafka.security }}
- {name: INFRASAGE_KAFKA__SASL_MECHANISM, value: {{ .Values.kafka.saslMechanism }}}
- {name: INFRASAGE_KAFKA__USERNAME, value: {{ required "kafka.username is needed for SASL" .Values.kafka.username | quote }}}
- {name: INFRASAGE_KAFKA__PASSWORD_FILE, value: {{ printf "/etc/infrasage/kafka/%s" .Values.kafka.passwordSecret.key | quote }}}
{{- end }}
{{- if .Values.kafka.caSecret.name }}
- {name: INFRASAGE_KAFKA__CA_FILE, value: {{ printf "/etc/infrasage/kafka-ca/%s" .Values.kafka.caSecret.key | quote }}}
{{- end }}
{{- end -}}

{{- define "collector.clickhouseEnv" -}}
- {name: INFRASAGE_CLICKHOUSE__URL, value: {{ required "clickhouse.url is needed: http://HOST:PORT" .Values.clickhouse.url | quote }}}
- {name: INFRASAGE_CLICKHOUSE__USER, value: {{ .Values.clickhouse.user | quote }}}
- {name: INFRASAGE_CLICKHOUSE__DATABASE, value: {{ .Values.clickhouse.database | quote }}}
{{- if .Values.clickhouse.cluster }}
- {name: INFRASAGE_CLICKHOUSE__CLUSTER, value: {{ .Values.clickhouse.cluster | quote }}}
{{- end }}
{{- if .Values.clickhouse.passwordSecret.name }}
- {name: INFRASAGE_CLICKHOUSE__PASSWORD_FILE, value: {{ printf "/etc/infrasage/clickhouse/%s" .Values.clickhouse.passwordSecret.key | quote }}}
{{- end }}
{{- if .Values.clickhouse.caSecret.name }}
- {name: INFRASAGE_CLICKHOUSE__CA_FILE, value: {{ printf "/etc/infrasage/clickhouse-ca/%s" .Values.clickhouse.caSecret.key | quote }}}
{{- end }}
{{- end -}}

{{/* Directories, not subPaths: only these are updated when a Secret changes. Their files have mode 288, which is octal 0440. */}}
{{- define "collector.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /etc/infrasage/tls, readOnly: true}
{{- if .Values.tls.clientCaSecret.name }}
- {name: clients, mountPath: /etc/infrasage/clients, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "collector.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- if .Values.tls.secret }}
- {name: tls, secret: {secretName: {{ .Values.tls.secret | quote }}, defaultMode: 288}}
{{- if .Values.tls.clientCaSecret.name }}
- {name: clients, secret: {secretName: {{ .Values.tls.clientCaSecret.name | quote }}, defaultMode: 288}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "collector.serversMounts" -}}
{{- if hasPrefix "SASL" .Values.kafka.security }}
- {name: kafka, mountPath: /etc/infrasage/kafka, readOnly: true}
{{- end }}
{{- if .Values.kafka.caSecret.name }}
- {name: kafka-ca, mountPath: /etc/infrasage/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.clickhouse.passwordSecret.name }}
- {name: clickhouse, mountPath: /etc/infrasage/clickhouse, readOnly: true}
{{- end }}
{{- if .Values.clickhouse.caSecret.name }}
- {name: clickhouse-ca, mountPath: /etc/infrasage/clickhouse-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "collector.serversVolumes" -}}
{{- if hasPrefix "SASL" .Values.kafka.security }}
- {name: kafka, secret: {secretName: {{ required "kafka.passwordSecret.name is needed for SASL" .Values.kafka.passwordSecret.name | quote }}, defaultMode: 288}}
{{- end }}
{{- if .Values.kafka.caSecret.name }}
- {name: kafka-ca, secret: {secretName: {{ .Values.kafka.caSecret.name | quote }}, defaultMode: 288}}
{{- end }}
{{- if .Values.clickhouse.passwordSecret.name }}
- {name: clickhouse, secret: {secretName: {{ .Values.clickhouse.passwordSecret.name | quote }}, defaultMode: 288}}
{{- end }}
{{- if .Values.clickhouse.caSecret.name }}
- {name: clickhouse-ca, secret: {secretName: {{ .Values.clickhouse.caSecret.name | quote }}, defaultMode: 288}}
{{- end }}
{{- end -}}

{{/* Helm reads YAML in which yes and no without quotes are true and false. */}}
{{- define "collector.anonymous" -}}
{{- $given := toString .Values.keys.anonymous -}}
{{- get (dict "true" "yes" "false" "no") $given | default $given -}}
{{- end -}}

{{- define "collector.keysEnv" -}}
{{- if .Values.keys.secret }}
- {name: INFRASAGE_TENANTS__KEYS_FILE, value: {{ printf "/etc/infrasage/keys/%s" .Values.keys.key | quote }}}
{{- end }}
- {name: INFRASAGE_TENANTS__ANONYMOUS, value: {{ include "collector.anonymous" . | quote }}}
{{- end -}}

{{- define "collector.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "collector.receiverPorts" -}}
- {name: http, containerPort: 8080}
- {name: otlp-http, containerPort: 4318}
- {name: otlp-grpc, containerPort: 4317}
{{- end -}}

{{/* Readiness is /healthz. The kubelet has no client certificate, so with mutual TLS it only connects. Liveness is never
     /healthz: that is 503 while Kafka is away, and a restart does not help. */}}
{{- define "collector.receiverProbes" -}}
startupProbe:
  tcpSocket: {port: http}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
{{- if and .Values.tls.secret .Values.tls.clientCaSecret.name }}
  tcpSocket: {port: http}
{{- else }}
  httpGet: {path: /healthz, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.tls.secret "") }}}
{{- end }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 1
livenessProbe:
  tcpSocket: {port: http}
  periodSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* (dict "root" $ "component" NAME "values" the component's values) */}}
{{- define "collector.podSpec" -}}
serviceAccountName: {{ include "collector.serviceAccount" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
# More than both times of a stop together, or the kubelet ends what is still being answered.
terminationGracePeriodSeconds: {{ add (ceil .root.Values.shutdown.lameDuckS) (ceil .root.Values.shutdown.timeoutS) 7 }}
securityContext: {{ toJson .root.Values.podSecurityContext }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- if and .root.Values.topologySpread.enabled (ne .component "single") }}
topologySpreadConstraints:
{{- $selector := include "collector.selector" . }}
{{- range .root.Values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}
