{{- define "rns.labels" -}}
app.kubernetes.io/name: registry-notification-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rns.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What the server and the worker have in common. */}}
{{- define "rns.container" -}}
image: {{ include "rns.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: RNS_MONGODB__URI_FILE, value: /run/secrets/rns/mongodb-uri}
  - {name: RNS_SERVER__SECRET_KEY_FILE, value: /run/secrets/rns/secret-key}
  - {name: RNS_SERVER__METRICS_TOKEN_FILE, value: /run/secrets/rns/metrics-token}
  - {name: RNS_SERVER__TRUSTED_PROXIES, value: {{ .Values.trustedProxies | quote }}}
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/rns, readOnly: true}
  - {name: secrets, mountPath: /run/secrets/rns, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "rns.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
volumes:
  - {name: config, configMap: {name: {{ .Release.Name }}-config}}
  - {name: secrets, secret: {secretName: {{ .Values.secretName }}}}
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
{{- end }}
