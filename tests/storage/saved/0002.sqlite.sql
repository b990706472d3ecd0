BEGIN TRANSACTION;
CREATE TABLE archsearch_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT archsearch_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "archsearch_version" VALUES('0002');
CREATE TABLE measurement (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	task VARCHAR(200) NOT NULL, 
	seed BIGINT NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	payload JSON NOT NULL, 
	reused_from INTEGER, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT fk_measurement_reused_from_trial FOREIGN KEY(reused_from) REFERENCES trial (id), 
	CONSTRAINT fk_measurement_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT uq_measurement_trial_id_task_seed UNIQUE (trial_id, task, seed)
);
INSERT INTO "measurement" VALUES(1,1,'k0','mqar',0,'complete','{"key": "k0", "task": "mqar:compact", "seed": 0, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}',NULL,'2026-11-29 09:20:43.795042');
INSERT INTO "measurement" VALUES(2,1,'k1','mqar',1,'complete','{"key": "k1", "task": "mqar:compact", "seed": 1, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}',NULL,'2026-11-29 09:20:43.882959');
INSERT INTO "measurement" VALUES(3,3,'k9','mqar',9,'complete','{"key": "k9", "task": "mqar:compact", "seed": 9, "status": "complete", "reason": null, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": [{"step": 1, "loss": 2.5}, {"step": 2.0, "loss": null}], "unexercised": [{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]}',1,'2026-11-29 09:20:44.149472');
CREATE TABLE metric (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	split VARCHAR(20) NOT NULL, 
	task VARCHAR(200), 
	seed BIGINT, 
	step BIGINT, 
	value DOUBLE, 
	CONSTRAINT pk_metric PRIMARY KEY (id), 
	CONSTRAINT fk_metric_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "metric" VALUES(1,1,'state_bytes@32768','cost',NULL,NULL,NULL,4096.0);
INSERT INTO "metric" VALUES(2,1,'mqar.accuracy','validation','mqar',0,NULL,0.5);
INSERT INTO "metric" VALUES(3,1,'mqar.accuracy','test','mqar',0,NULL,0.25);
INSERT INTO "metric" VALUES(4,1,'mqar.loss','progress','mqar',0,1,2.5);
INSERT INTO "metric" VALUES(5,1,'mqar.loss','progress','mqar',0,2,NULL);
INSERT INTO "metric" VALUES(6,1,'mqar.accuracy','validation','mqar',1,NULL,0.5);
INSERT INTO "metric" VALUES(7,1,'mqar.accuracy','test','mqar',1,NULL,0.25);
INSERT INTO "metric" VALUES(8,1,'mqar.loss','progress','mqar',1,1,2.5);
INSERT INTO "metric" VALUES(9,1,'mqar.loss','progress','mqar',1,2,NULL);
INSERT INTO "metric" VALUES(10,1,'recall','test',NULL,0,NULL,0.25);
INSERT INTO "metric" VALUES(11,1,'recall','test',NULL,1,NULL,1.25);
INSERT INTO "metric" VALUES(12,2,'state_bytes@32768','cost',NULL,NULL,NULL,4096.0);
INSERT INTO "metric" VALUES(13,3,'state_bytes@32768','cost',NULL,NULL,NULL,4096.0);
INSERT INTO "metric" VALUES(14,3,'mqar.accuracy','test','mqar',9,NULL,0.75);
INSERT INTO "metric" VALUES(15,3,'mqar.loss','progress','mqar',9,1,2.5);
INSERT INTO "metric" VALUES(16,3,'mqar.loss','progress','mqar',9,2,NULL);
INSERT INTO "metric" VALUES(17,4,'state_bytes@32768','cost',NULL,NULL,NULL,4096.0);
CREATE TABLE part (
	id INTEGER NOT NULL, 
	search_id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	version VARCHAR(200) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_part PRIMARY KEY (id), 
	CONSTRAINT fk_part_search_id_search FOREIGN KEY(search_id) REFERENCES search (id), 
	CONSTRAINT uq_part_search_id_name UNIQUE (search_id, name)
);
INSERT INTO "part" VALUES(1,1,'core','archsearch 0.1.0','aa');
INSERT INTO "part" VALUES(2,1,'mixer:full','archsearch 0.1.0 r1','bb');
INSERT INTO "part" VALUES(3,2,'core','archsearch 0.1.0','aa');
INSERT INTO "part" VALUES(4,2,'mixer:full','archsearch 0.1.0 r1','bb');
CREATE TABLE plugin_version (
	id INTEGER NOT NULL, 
	search_id INTEGER NOT NULL, 
	plugin VARCHAR(200) NOT NULL, 
	distribution VARCHAR(200), 
	version VARCHAR(100), 
	CONSTRAINT pk_plugin_version PRIMARY KEY (id), 
	CONSTRAINT fk_plugin_version_search_id_search FOREIGN KEY(search_id) REFERENCES search (id)
);
INSERT INTO "plugin_version" VALUES(1,1,'full','archsearch','0.1.0');
INSERT INTO "plugin_version" VALUES(2,1,'sliding','archsearch','0.1.0');
CREATE TABLE search (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT NOT NULL, 
	spec JSON NOT NULL, 
	objectives JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	heartbeat_at DATETIME NOT NULL, 
	finished_at DATETIME, driver JSON, beats INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_search PRIMARY KEY (id), 
	CONSTRAINT uq_search_name UNIQUE (name)
);
INSERT INTO "search" VALUES(1,'quick','complete','3 candidates were trained','{"name": "quick", "seed": 0, "search": {"trials": 3}}','[{"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"}, {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"}]','2026-11-29 09:20:43.620113','2026-11-29 09:20:43.620113','2026-11-29 09:20:44.169326','{"host": "far", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 77, "started": 5}',0);
INSERT INTO "search" VALUES(2,'lost','running','','{"name": "lost"}','[{"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"}, {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"}]','2026-11-29 09:20:44.170421','2026-11-29 09:20:44.224920',NULL,'{"host": "far", "boot_id": "b", "pid_namespace": "pid:[1]", "pid": 77, "started": 5}',1);
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	search_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT NOT NULL, 
	arch JSON NOT NULL, 
	digest VARCHAR(128) NOT NULL, 
	pattern TEXT NOT NULL, 
	params JSON NOT NULL, 
	seeds JSON NOT NULL, 
	violations JSON NOT NULL, 
	unexercised JSON NOT NULL, 
	parent_id INTEGER, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_parent_id_trial FOREIGN KEY(parent_id) REFERENCES trial (id), 
	CONSTRAINT fk_trial_search_id_search FOREIGN KEY(search_id) REFERENCES search (id), 
	CONSTRAINT uq_trial_search_id_number UNIQUE (search_id, number)
);
INSERT INTO "trial" VALUES(1,1,0,'search','complete','','{"layers": [{"mixer": "full"}]}','d0','full*2','{"unit": "full"}','[0, 1]','{}','[{"layer": "sliding(window=64)", "task": "mqar", "seq_len": 48, "dense_up_to": 64}]',NULL,'2026-11-29 09:20:43.710854','2026-11-29 09:20:43.710854','2026-11-29 09:20:44.012262');
INSERT INTO "trial" VALUES(2,1,1,'search','infeasible','over budget','{"layers": [{"mixer": "full"}]}','d1','moba*2 — é','{"unit": "full"}','[]','{"state_bytes@32768": 0.5}','[]',NULL,'2026-11-29 09:20:44.013787',NULL,'2026-11-29 09:20:44.013787');
INSERT INTO "trial" VALUES(3,1,2,'confirm','diverged','the loss is not finite at step 3','{"layers": [{"mixer": "full"}]}','d0','full*2','{"unit": "full"}','[0, 1]','{}','[]',1,'2026-11-29 09:20:44.108161','2026-11-29 09:20:44.108161','2026-11-29 09:20:44.153895');
INSERT INTO "trial" VALUES(4,2,0,'search','queued','','{"layers": [{"mixer": "full"}]}','d5','full*2','{"unit": "full"}','[0, 1]','{}','[]',NULL,'2026-11-29 09:20:44.220623',NULL,NULL);
CREATE INDEX ix_plugin_version_search_id ON plugin_version (search_id);
CREATE INDEX ix_trial_digest ON trial (digest);
CREATE INDEX ix_trial_parent_id ON trial (parent_id);
CREATE INDEX ix_measurement_key ON measurement ("key");
CREATE INDEX ix_measurement_reused_from ON measurement (reused_from);
CREATE INDEX ix_metric_trial_id_split ON metric (trial_id, split);
COMMIT;
