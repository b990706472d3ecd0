-- Three roles for one database of archsearch; run by its owner or a superuser, in that database, any number of times:
--
--     psql --set=ON_ERROR_STOP=1 --dbname=archsearch --file=deploy/postgres/roles.sql
--
-- archsearch_migrator   makes and upgrades the tables (`archsearch db upgrade`), and owns them
-- archsearch_writer     drives searches and submits jobs: reads and writes rows, changes no table
-- archsearch_reader     the dashboard's: reads, and nothing else
--
-- No password stands here. Give each role its own afterwards, in psql, which sends only the hash of it:
--
--     \password archsearch_migrator
--     \password archsearch_writer
--     \password archsearch_reader

BEGIN;

SELECT format('CREATE ROLE %I LOGIN NOINHERIT', role)
FROM unnest(ARRAY['archsearch_migrator', 'archsearch_writer', 'archsearch_reader']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)
\gexec

-- Nobody else comes in. What PUBLIC may do otherwise, every role of the server may.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database())
\gexec
SELECT format(
    'GRANT CONNECT ON DATABASE %I TO archsearch_migrator, archsearch_writer, archsearch_reader', current_database()
)
\gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO archsearch_migrator;
GRANT USAGE ON SCHEMA public TO archsearch_writer, archsearch_reader;

-- Tables that were made before by somebody else become the migrator's, with the sequences of their ids.
SELECT format('ALTER TABLE public.%I OWNER TO archsearch_migrator', tablename)
FROM pg_tables
WHERE schemaname = 'public' AND tableowner <> 'archsearch_migrator'
\gexec

-- What is there, and what the migrator makes from now on.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO archsearch_writer;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO archsearch_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO archsearch_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE archsearch_migrator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO archsearch_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE archsearch_migrator IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO archsearch_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE archsearch_migrator IN SCHEMA public
    GRANT SELECT ON TABLES TO archsearch_reader;

-- Which schema the database has is the migrator's to say. Of a table that is yet to be made, `archsearch db upgrade`
-- takes back what the defaults above give.
SELECT 'REVOKE INSERT, UPDATE, DELETE ON public.archsearch_version FROM archsearch_writer'
WHERE to_regclass('public.archsearch_version') IS NOT NULL
\gexec

-- A reader that is told to write refuses before it asks for a right.
ALTER ROLE archsearch_reader SET default_transaction_read_only = on;

COMMIT;
