CREATE TABLE public.archsearch_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.measurement (
    id integer NOT NULL,
    trial_id integer NOT NULL,
    key character varying(128) NOT NULL,
    task character varying(200) NOT NULL,
    seed bigint NOT NULL,
    status character varying(20) NOT NULL,
    payload json NOT NULL,
    reused_from integer,
    created_at timestamp with time zone NOT NULL
);
CREATE SEQUENCE public.measurement_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.measurement_id_seq OWNED BY public.measurement.id;
CREATE TABLE public.metric (
    id integer NOT NULL,
    trial_id integer NOT NULL,
    name character varying(200) NOT NULL,
    split character varying(20) NOT NULL,
    task character varying(200),
    seed bigint,
    step bigint,
    value double precision
);
CREATE SEQUENCE public.metric_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.metric_id_seq OWNED BY public.metric.id;
CREATE TABLE public.part (
    id integer NOT NULL,
    search_id integer NOT NULL,
    name character varying(200) NOT NULL,
    version character varying(200) NOT NULL,
    digest character varying(64) NOT NULL
);
CREATE SEQUENCE public.part_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.part_id_seq OWNED BY public.part.id;
CREATE TABLE public.plugin_version (
    id integer NOT NULL,
    search_id integer NOT NULL,
    plugin character varying(200) NOT NULL,
    distribution character varying(200),
    version character varying(100)
);
CREATE SEQUENCE public.plugin_version_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.plugin_version_id_seq OWNED BY public.plugin_version.id;
CREATE TABLE public.search (
    id integer NOT NULL,
    name character varying(200) NOT NULL,
    state character varying(20) NOT NULL,
    reason text NOT NULL,
    spec json NOT NULL,
    objectives json NOT NULL,
    created_at timestamp with time zone NOT NULL,
    heartbeat_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    driver json,
    beats integer DEFAULT 0 NOT NULL
);
CREATE SEQUENCE public.search_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.search_id_seq OWNED BY public.search.id;
CREATE TABLE public.trial (
    id integer NOT NULL,
    search_id integer NOT NULL,
    number integer NOT NULL,
    kind character varying(20) NOT NULL,
    state character varying(20) NOT NULL,
    reason text NOT NULL,
    arch json NOT NULL,
    digest character varying(128) NOT NULL,
    pattern text NOT NULL,
    params json NOT NULL,
    seeds json NOT NULL,
    violations json NOT NULL,
    unexercised json NOT NULL,
    parent_id integer,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);
CREATE SEQUENCE public.trial_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.trial_id_seq OWNED BY public.trial.id;
ALTER TABLE ONLY public.measurement ALTER COLUMN id SET DEFAULT nextval('public.measurement_id_seq'::regclass);
ALTER TABLE ONLY public.metric ALTER COLUMN id SET DEFAULT nextval('public.metric_id_seq'::regclass);
ALTER TABLE ONLY public.part ALTER COLUMN id SET DEFAULT nextval('public.part_id_seq'::regclass);
ALTER TABLE ONLY public.plugin_version ALTER COLUMN id SET DEFAULT nextval('public.plugin_version_id_seq'::regclass);
ALTER TABLE ONLY public.search ALTER COLUMN id SET DEFAULT nextval('public.search_id_seq'::regclass);
ALTER TABLE ONLY public.trial ALTER COLUMN id SET DEFAULT nextval('public.trial_id_seq'::regclass);
INSERT INTO public.archsearch_version VALUES ('0002');
INSERT INTO public.measurement VALUES (1, 1, 'k0', 'mqar', 0, 'complete', '{"key": "k0", "task": "mqar:compact", "seed": 0, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}', NULL, '2026-11-29 09:21:08.848925+00');
INSERT INTO public.measurement VALUES (2, 1, 'k1', 'mqar', 1, 'complete', '{"key": "k1", "task": "mqar:compact", "seed": 1, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}', NULL, '2026-11-29 09:21:08.892261+00');
INSERT INTO public.measurement VALUES (3, 3, 'k9', 'mqar', 9, 'complete', '{"key": "k9", "task": "mqar:compact", "seed": 9, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}', 1, '2026-11-29 09:21:09.04282+00');
INSERT INTO public.metric VALUES (1, 1, 'state_bytes@32768', 'cost', NULL, NULL, NULL, 4096);
INSERT INTO public.metric VALUES (2, 1, 'mqar.accuracy', 'validation', 'mqar', 0, NULL, 0.5);
INSERT INTO public.metric VALUES (3, 1, 'mqar.accuracy', 'test', 'mqar', 0, NULL, 0.25);
INSERT INTO public.metric VALUES (4, 1, 'mqar.loss', 'progress', 'mqar', 0, 1, 2.5);
INSERT INTO public.metric VALUES (5, 1, 'mqar.loss', 'progress', 'mqar', 0, 2, NULL);
INSERT INTO public.metric VALUES (6, 1, 'mqar.accuracy', 'validation', 'mqar', 1, NULL, 0.5);
INSERT INTO public.metric VALUES (7, 1, 'mqar.accuracy', 'test', 'mqar', 1, NULL, 0.25);
INSERT INTO public.metric VALUES (8, 1, 'mqar.loss', 'progress', 'mqar', 1, 1, 2.5);
INSERT INTO public.metric VALUES (9, 1, 'mqar.loss', 'progress', 'mqar', 1, 2, NULL);
INSERT INTO public.metric VALUES (10, 1, 'recall', 'test', NULL, 0, NULL, 0.25);
INSERT INTO public.metric VALUES (11, 1, 'recall', 'test', NULL, 1, NULL, 1.25);
INSERT INTO public.metric VALUES (12, 2, 'state_bytes@32768', 'cost', NULL, NULL, NULL, 4096);
INSERT INTO public.metric VALUES (13, 3, 'state_bytes@32768', 'cost', NULL, NULL, NULL, 4096);
INSERT INTO public.metric VALUES (14, 3, 'mqar.accuracy', 'test', 'mqar', 9, NULL, 0.75);
INSERT INTO public.metric VALUES (15, 3, 'mqar.loss', 'progress', 'mqar', 9, 1, 2.5);
INSERT INTO public.metric VALUES (16, 3, 'mqar.loss', 'progress', 'mqar', 9, 2, NULL);
INSERT INTO public.metric VALUES (17, 4, 'state_bytes@32768', 'cost', NULL, NULL, NULL, 4096);
INSERT INTO public.part VALUES (1, 1, 'core', 'archsearch 0.1.0', 'aa');
INSERT INTO public.part VALUES (2, 1, 'mixer:full', 'archsearch 0.1.0 r1', 'bb');
INSERT INTO public.part VALUES (3, 2, 'core', 'archsearch 0.1.0', 'aa');
INSERT INTO public.part VALUES (4, 2, 'mixer:full', 'archsearch 0.1.0 r1', 'bb');
INSERT INTO public.plugin_version VALUES (1, 1, 'full', 'archsearch', '0.1.0');
INSERT INTO public.plugin_version VALUES (2, 1, 'sliding', 'archsearch', '0.1.0');
INSERT INTO public.search VALUES (1, 'quick', 'complete', '3 candidates were trained', '{"name": "quick", "seed": 0, "search": {"trials": 3}}', '[{"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"}, {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"}]', '2026-11-29 09:21:08.64864+00', '2026-11-29 09:21:08.64864+00', '2026-11-29 09:21:09.053501+00', '{"host": "far", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 77, "started": 5}', 0);
INSERT INTO public.search VALUES (2, 'lost', 'running', '', '{"name": "lost"}', '[{"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"}, {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"}]', '2026-11-29 09:21:09.060579+00', '2026-11-29 09:21:09.074974+00', NULL, '{"host": "far", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 77, "started": 5}', 1);
INSERT INTO public.trial VALUES (1, 1, 0, 'search', 'complete', '', '{"layers": [{"mixer": "full"}]}', 'd0', 'full*2', '{"unit": "full"}', '[0, 1]', '{}', '[{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]', NULL, '2026-11-29 09:21:08.722585+00', '2026-11-29 09:21:08.722585+00', '2026-11-29 09:21:08.949801+00');
INSERT INTO public.trial VALUES (2, 1, 1, 'search', 'infeasible', 'over budget', '{"layers": [{"mixer": "full"}]}', 'd1', 'moba*2 — é', '{"unit": "full"}', '[]', '{"state_bytes@32768": 0.5}', '[]', NULL, '2026-11-29 09:21:08.972419+00', NULL, '2026-11-29 09:21:08.972419+00');
INSERT INTO public.trial VALUES (3, 1, 2, 'confirm', 'diverged', 'the loss is not finite at step 3', '{"layers": [{"mixer": "full"}]}', 'd0', 'full*2', '{"unit": "full"}', '[0, 1]', '{}', '[]', 1, '2026-11-29 09:21:08.998295+00', '2026-11-29 09:21:08.998295+00', '2026-11-29 09:21:09.046124+00');
INSERT INTO public.trial VALUES (4, 2, 0, 'search', 'queued', '', '{"layers": [{"mixer": "full"}]}', 'd5', 'full*2', '{"unit": "full"}', '[0, 1]', '{}', '[]', NULL, '2026-11-29 09:21:09.068241+00', NULL, NULL);
SELECT pg_catalog.setval('public.measurement_id_seq', 3, true);
SELECT pg_catalog.setval('public.metric_id_seq', 17, true);
SELECT pg_catalog.setval('public.part_id_seq', 4, true);
SELECT pg_catalog.setval('public.plugin_version_id_seq', 2, true);
SELECT pg_catalog.setval('public.search_id_seq', 2, true);
SELECT pg_catalog.setval('public.trial_id_seq', 4, true);
ALTER TABLE ONLY public.archsearch_version
    ADD CONSTRAINT archsearch_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.measurement
    ADD CONSTRAINT pk_measurement PRIMARY KEY (id);
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT pk_metric PRIMARY KEY (id);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT pk_part PRIMARY KEY (id);
ALTER TABLE ONLY public.plugin_version
    ADD CONSTRAINT pk_plugin_version PRIMARY KEY (id);
ALTER TABLE ONLY public.search
    ADD CONSTRAINT pk_search PRIMARY KEY (id);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT pk_trial PRIMARY KEY (id);
ALTER TABLE ONLY public.measurement
    ADD CONSTRAINT uq_measurement_trial_id_task_seed UNIQUE (trial_id, task, seed);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT uq_part_search_id_name UNIQUE (search_id, name);
ALTER TABLE ONLY public.search
    ADD CONSTRAINT uq_search_name UNIQUE (name);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT uq_trial_search_id_number UNIQUE (search_id, number);
CREATE INDEX ix_measurement_key ON public.measurement USING btree (key);
CREATE INDEX ix_measurement_reused_from ON public.measurement USING btree (reused_from);
CREATE INDEX ix_metric_trial_id_split ON public.metric USING btree (trial_id, split);
CREATE INDEX ix_plugin_version_search_id ON public.plugin_version USING btree (search_id);
CREATE INDEX ix_trial_digest ON public.trial USING btree (digest);
CREATE INDEX ix_trial_parent_id ON public.trial USING btree (parent_id);
ALTER TABLE ONLY public.measurement
    ADD CONSTRAINT fk_measurement_reused_from_trial FOREIGN KEY (reused_from) REFERENCES public.trial(id);
ALTER TABLE ONLY public.measurement
    ADD CONSTRAINT fk_measurement_trial_id_trial FOREIGN KEY (trial_id) REFERENCES public.trial(id);
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT fk_metric_trial_id_trial FOREIGN KEY (trial_id) REFERENCES public.trial(id);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT fk_part_search_id_search FOREIGN KEY (search_id) REFERENCES public.search(id);
ALTER TABLE ONLY public.plugin_version
    ADD CONSTRAINT fk_plugin_version_search_id_search FOREIGN KEY (search_id) REFERENCES public.search(id);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT fk_trial_parent_id_trial FOREIGN KEY (parent_id) REFERENCES public.trial(id);
ALTER TABLE ONLY public.trial
    ADD CONSTRAINT fk_trial_search_id_search FOREIGN KEY (search_id) REFERENCES public.search(id);
