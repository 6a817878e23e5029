-- find_history
SELECT 'customer' AS kind, customers.profile AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, customers.create_time AS part_5, customers.version AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM customers
WHERE customers.customer_key = :customer_key UNION ALL SELECT 'contact' AS kind, contacts.decision_id AS part_0, contacts.channel AS part_1, contacts.topic AS part_2, contacts.category AS part_3, CAST(NULL AS VARCHAR) AS part_4, contacts.step AS part_5, contacts.start_time AS part_6, contacts.end_time AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM contacts
WHERE contacts.customer_key = :customer_key AND contacts.start_time > :contacts_after AND contacts.is_open = :is_open UNION ALL SELECT 'order' AS kind, CAST(NULL AS VARCHAR) AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.occur_time AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time > :orders_after AND outcomes.type IN ('order', 'store_purchase') UNION ALL SELECT anon_1.kind, anon_1.part_0, anon_1.part_1, anon_1.part_2, anon_1.part_3, anon_1.part_4, anon_1.part_5, anon_1.part_6, anon_1.part_7, anon_1.part_8, anon_1.part_9, anon_1.part_10
FROM (SELECT 'activity' AS kind, outcomes.decision_id AS part_0, outcomes.type AS part_1, outcomes.event_id AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.step AS part_5, outcomes.occur_time AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time > :activity_after AND outcomes.occur_time <= :until AND outcomes.type IN ('visit', 'seen', 'opened', 'clicked', 'order', 'store_purchase') AND outcomes.machine_generated = 0 ORDER BY outcomes.occur_time DESC, outcomes.event_id
 LIMIT :most OFFSET 0) AS anon_1 UNION ALL SELECT 'pause' AS kind, pauses.channel AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM pauses UNION ALL SELECT 'exposure' AS kind, exposures.experiment AS part_0, exposures.variant AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, exposures.probability AS part_10
FROM exposures
WHERE exposures.customer_key = :customer_key UNION ALL SELECT 'experiment' AS kind, experiments.experiment AS part_0, experiments.state AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, experiments.exposure AS part_10
FROM experiments

-- find_history_and_budgets
SELECT 'customer' AS kind, customers.profile AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, customers.create_time AS part_5, customers.version AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM customers
WHERE customers.customer_key = :customer_key UNION ALL SELECT 'contact' AS kind, contacts.decision_id AS part_0, contacts.channel AS part_1, contacts.topic AS part_2, contacts.category AS part_3, CAST(NULL AS VARCHAR) AS part_4, contacts.step AS part_5, contacts.start_time AS part_6, contacts.end_time AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM contacts
WHERE contacts.customer_key = :customer_key AND contacts.start_time > :contacts_after AND contacts.is_open = :is_open UNION ALL SELECT 'order' AS kind, CAST(NULL AS VARCHAR) AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.occur_time AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time > :orders_after AND outcomes.type IN ('order', 'store_purchase') UNION ALL SELECT anon_1.kind, anon_1.part_0, anon_1.part_1, anon_1.part_2, anon_1.part_3, anon_1.part_4, anon_1.part_5, anon_1.part_6, anon_1.part_7, anon_1.part_8, anon_1.part_9, anon_1.part_10
FROM (SELECT 'activity' AS kind, outcomes.decision_id AS part_0, outcomes.type AS part_1, outcomes.event_id AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, outcomes.step AS part_5, outcomes.occur_time AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time > :activity_after AND outcomes.occur_time <= :until AND outcomes.type IN ('visit', 'seen', 'opened', 'clicked', 'order', 'store_purchase') AND outcomes.machine_generated = 0 ORDER BY outcomes.occur_time DESC, outcomes.event_id
 LIMIT :most OFFSET 0) AS anon_1 UNION ALL SELECT 'pause' AS kind, pauses.channel AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM pauses UNION ALL SELECT 'exposure' AS kind, exposures.experiment AS part_0, exposures.variant AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, exposures.probability AS part_10
FROM exposures
WHERE exposures.customer_key = :customer_key UNION ALL SELECT 'experiment' AS kind, experiments.experiment AS part_0, experiments.state AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, CAST(NULL AS BIGINT) AS part_5, CAST(NULL AS BIGINT) AS part_6, CAST(NULL AS BIGINT) AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, experiments.exposure AS part_10
FROM experiments UNION ALL SELECT 'budget' AS kind, anon_2.budget AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, anon_2.period_start AS part_5, anon_2.reserved_micros AS part_6, anon_2.committed_micros AS part_7, anon_2.price_time AS part_8, anon_2.leased_micros AS part_9, anon_2.held_price AS part_10
FROM (SELECT budgets.budget AS budget, budgets.period_start AS period_start, (budgets.reserved_micros + CAST((SELECT coalesce(sum(leases.reserved_micros), 0) AS coalesce_1
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT)) - CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_2
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS reserved_micros, budgets.committed_micros + CAST((SELECT coalesce(sum(leases.committed_micros), 0) AS coalesce_3
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS committed_micros, budgets.held_price AS held_price, budgets.price_time AS price_time, CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_4
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start AND leases.holder != :holder AND leases.expire_time > :now) AS BIGINT) AS leased_micros
FROM budgets
WHERE budgets.period_start = (SELECT max(budgets_1.period_start) AS max_1
FROM budgets AS budgets_1
WHERE budgets_1.budget = budgets.budget AND budgets_1.period_start <= :until)) AS anon_2 UNION ALL SELECT 'budget_change' AS kind, budget_changes.budget AS part_0, CAST(NULL AS VARCHAR) AS part_1, CAST(NULL AS VARCHAR) AS part_2, CAST(NULL AS VARCHAR) AS part_3, CAST(NULL AS VARCHAR) AS part_4, budget_changes.number AS part_5, budget_changes.amount_micros AS part_6, budget_changes.file_micros AS part_7, CAST(NULL AS BIGINT) AS part_8, CAST(NULL AS BIGINT) AS part_9, CAST(NULL AS FLOAT) AS part_10
FROM budget_changes

-- find_request
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions JOIN requests ON requests.decision_id = decisions.decision_id AND requests.step = decisions.step
WHERE requests.request_id = :request_id AND requests.step = :step

-- find_step
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions
WHERE decisions.decision_id = :decision_id AND decisions.step = :step

-- find_owner
SELECT decisions.customer_key
FROM decisions
WHERE decisions.decision_id = :decision_id AND decisions.step = 1

-- list_steps
SELECT decisions.decision_id, decisions.step, decisions.request_id, decisions.request_digest, decisions.customer_key, decisions.decide_time, decisions.campaign, decisions.mode, decisions.verdict, decisions.channel, decisions.send_time, decisions.propensity, decisions.price_micros, decisions.order_margin_micros, decisions.policy, decisions.bundle_version, decisions.rules_name, decisions.trainable, decisions.features, decisions.context, decisions.choice, decisions.actions
FROM decisions
WHERE decisions.decision_id = :decision_id ORDER BY decisions.step

-- find_outcome
SELECT outcomes.event_id, outcomes.digest, outcomes.decision_id, outcomes.step, outcomes.customer_key, outcomes.type, outcomes.occur_time, outcomes.receive_time, outcomes.status, outcomes.value_micros, outcomes.cost_micros, outcomes.machine_generated, outcomes.csat, outcomes.nps, outcomes.revenue_micros
FROM outcomes
WHERE outcomes.event_id = :event_id

-- list_outcomes
SELECT outcomes.event_id, outcomes.digest, outcomes.decision_id, outcomes.step, outcomes.customer_key, outcomes.type, outcomes.occur_time, outcomes.receive_time, outcomes.status, outcomes.value_micros, outcomes.cost_micros, outcomes.machine_generated, outcomes.csat, outcomes.nps, outcomes.revenue_micros
FROM outcomes
WHERE outcomes.decision_id = :decision_id ORDER BY outcomes.occur_time, outcomes.event_id

-- list_purchases
SELECT outcomes.occur_time
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time > :after AND outcomes.type IN ('order', 'store_purchase') ORDER BY outcomes.occur_time

-- list_clicked
SELECT DISTINCT outcomes.decision_id, outcomes.step
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time >= :since AND outcomes.occur_time < :until AND outcomes.type = 'clicked' AND outcomes.status = 'accepted' AND outcomes.machine_generated = 0 ORDER BY outcomes.decision_id, outcomes.step

-- list_orders
SELECT outcomes.event_id, outcomes.occur_time
FROM outcomes
WHERE outcomes.customer_key = :customer_key AND outcomes.occur_time >= :since AND outcomes.occur_time < :until AND outcomes.type IN ('order', 'store_purchase') AND outcomes.status != 'parked' AND outcomes.machine_generated = 0 ORDER BY outcomes.occur_time, outcomes.event_id

-- list_statistics
SELECT statistics.bundle, statistics.stage, statistics.channel, statistics.kind, statistics.step, statistics.hour, statistics.observed, statistics.expected
FROM statistics
WHERE statistics.bundle = :bundle AND statistics.hour >= :since_hour AND statistics.hour <= :until_hour ORDER BY statistics.hour, statistics.stage, statistics.channel, statistics.kind, statistics.step

-- find_contact
SELECT contacts.decision_id, contacts.step, contacts.customer_key, contacts.channel, contacts.topic, contacts.category, contacts.start_time, contacts.end_time, contacts.is_open
FROM contacts
WHERE contacts.decision_id = :decision_id AND contacts.step = :step

-- find_identity
SELECT identities.customer_key
FROM identities
WHERE identities.identity_hash = :identity_hash

-- count_identities
SELECT count(*) AS count_1
FROM identities
WHERE identities.customer_key = :customer_key

-- count_all_identities
SELECT count(*) AS count_1
FROM identities

-- find_customer
SELECT customers.profile, customers.create_time, customers.version
FROM customers
WHERE customers.customer_key = :customer_key

-- list_pauses
SELECT pauses.channel, pauses.pause_time, pauses.reason
FROM pauses ORDER BY pauses.channel

-- find_budget
SELECT budgets.budget, budgets.period_start, (budgets.reserved_micros + CAST((SELECT coalesce(sum(leases.reserved_micros), 0) AS coalesce_1
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT)) - CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_2
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS reserved_micros, budgets.committed_micros + CAST((SELECT coalesce(sum(leases.committed_micros), 0) AS coalesce_3
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start) AS BIGINT) AS committed_micros, budgets.held_price, budgets.price_time, CAST((SELECT coalesce(sum(leases.left_micros), 0) AS coalesce_4
FROM leases
WHERE leases.budget = budgets.budget AND leases.period_start = budgets.period_start AND leases.holder != :holder AND leases.expire_time > :now) AS BIGINT) AS leased_micros
FROM budgets
WHERE budgets.budget = :budget AND budgets.period_start <= :period_start ORDER BY budgets.period_start DESC
 LIMIT 1 OFFSET 0

-- list_budget_changes
SELECT budget_changes.budget, budget_changes.number, budget_changes.change_time, budget_changes.amount_micros, budget_changes.file_micros, budget_changes.reason
FROM budget_changes ORDER BY budget_changes.budget, budget_changes.number

-- find_lease
SELECT leases.left_micros
FROM leases
WHERE leases.budget = :key_budget AND leases.period_start = :key_period_start AND leases.holder = :key_holder AND leases.expire_time > :now

-- sum_stopped_leases
SELECT CAST(sum(leases.left_micros) AS BIGINT) AS sum_1, CAST(sum(leases.reserved_micros) AS BIGINT) AS sum_2, CAST(sum(leases.committed_micros) AS BIGINT) AS sum_3
FROM leases
WHERE leases.budget = :key_budget AND leases.period_start = :key_period_start AND leases.expire_time = 0

-- list_expired_leases
SELECT DISTINCT leases.budget, leases.period_start
FROM leases
WHERE leases.expire_time <= :now ORDER BY leases.budget, leases.period_start

-- list_reservations
SELECT reservations.decision_id, reservations.step, reservations.budget, reservations.period_start, reservations.price_micros, reservations.reserved_micros, reservations.committed_micros, reservations.expire_time
FROM reservations
WHERE reservations.decision_id = :decision_id AND reservations.step = :step ORDER BY reservations.budget

-- list_expired
SELECT reservations.decision_id, reservations.step, reservations.budget, reservations.period_start, reservations.price_micros, reservations.reserved_micros, reservations.committed_micros, reservations.expire_time
FROM reservations
WHERE reservations.reserved_micros > 0 AND reservations.expire_time <= :now ORDER BY reservations.expire_time, reservations.decision_id, reservations.step, reservations.budget

-- list_exposures
SELECT exposures.experiment, exposures.customer_key, exposures.variant, exposures.probability, exposures.expose_time, exposures.decision_id, exposures.rules_name, exposures.is_mixed
FROM exposures
WHERE exposures.customer_key = :customer_key ORDER BY exposures.experiment

-- count_exposures
SELECT exposures.experiment, exposures.variant, count(*) AS count_1
FROM exposures
WHERE exposures.is_mixed = 0 GROUP BY exposures.experiment, exposures.variant ORDER BY exposures.experiment, exposures.variant

-- count_mixed
SELECT exposures.experiment, count(*) AS count_1
FROM exposures
WHERE exposures.is_mixed = 1 GROUP BY exposures.experiment

-- list_experiments
SELECT experiments.experiment, experiments.state, experiments.exposure
FROM experiments ORDER BY experiments.experiment

-- list_experiment_changes
SELECT experiment_changes.experiment, experiment_changes.number, experiment_changes.change_time, experiment_changes.state, experiment_changes.exposure, experiment_changes.reason
FROM experiment_changes
WHERE experiment_changes.experiment = :experiment ORDER BY experiment_changes.number

-- find_fact
SELECT facts.value
FROM facts
WHERE facts.name = :name

-- insert_decision
INSERT INTO decisions (decision_id, step, request_id, request_digest, customer_key, decide_time, campaign, mode, verdict, channel, send_time, propensity, price_micros, order_margin_micros, policy, bundle_version, rules_name, trainable, features, context, choice, actions) VALUES (:decision_id, :step, :request_id, :request_digest, :customer_key, :decide_time, :campaign, :mode, :verdict, :channel, :send_time, :propensity, :price_micros, :order_margin_micros, :policy, :bundle_version, :rules_name, :trainable, :features, :context, :choice, :actions)

-- insert_outcome
INSERT INTO outcomes (event_id, digest, decision_id, step, customer_key, type, occur_time, receive_time, status, value_micros, cost_micros, machine_generated, csat, nps, revenue_micros) VALUES (:event_id, :digest, :decision_id, :step, :customer_key, :type, :occur_time, :receive_time, :status, :value_micros, :cost_micros, :machine_generated, :csat, :nps, :revenue_micros)

-- insert_contact
INSERT INTO contacts (decision_id, step, customer_key, channel, topic, category, start_time, end_time, is_open) VALUES (:decision_id, :step, :customer_key, :channel, :topic, :category, :start_time, :end_time, :is_open)

-- insert_reservation
INSERT INTO reservations (decision_id, step, budget, period_start, price_micros, reserved_micros, committed_micros, expire_time) VALUES (:decision_id, :step, :budget, :period_start, :price_micros, :reserved_micros, :committed_micros, :expire_time)

-- insert_pause
INSERT INTO pauses (channel, pause_time, reason) VALUES (:channel, :pause_time, :reason)

-- insert_budget_change
INSERT INTO budget_changes (budget, number, change_time, amount_micros, file_micros, reason) VALUES (:budget, :number, :change_time, :amount_micros, :file_micros, :reason)

-- insert_exposure
INSERT INTO exposures (experiment, customer_key, variant, probability, expose_time, decision_id, rules_name, is_mixed) VALUES (:experiment, :customer_key, :variant, :probability, :expose_time, :decision_id, :rules_name, :is_mixed)

-- delete_exposures
DELETE FROM exposures WHERE exposures.customer_key = :customer_key

-- move_exposures
UPDATE exposures SET customer_key=:new_customer_key WHERE exposures.customer_key = :key_customer_key

-- insert_experiment
INSERT INTO experiments (experiment, state, exposure) VALUES (:experiment, :state, :exposure)

-- delete_experiment
DELETE FROM experiments WHERE experiments.experiment = :experiment

-- insert_experiment_change
INSERT INTO experiment_changes (experiment, number, change_time, state, exposure, reason) VALUES (:experiment, :number, :change_time, :state, :exposure, :reason)

-- delete_statistics
DELETE FROM statistics WHERE statistics.hour < :before_hour

-- delete_pause
DELETE FROM pauses WHERE pauses.channel = :channel

-- delete_customer
DELETE FROM customers WHERE customers.customer_key = :customer_key

-- claim_customer
UPDATE customers SET version=(customers.version + 1) WHERE customers.customer_key = :key_customer_key AND customers.version = :key_version

-- touch_customer
UPDATE customers SET version=(customers.version + 1) WHERE customers.customer_key = :key_customer_key

-- update_reservation
UPDATE reservations SET reserved_micros=:new_reserved_micros, committed_micros=:new_committed_micros WHERE reservations.decision_id = :key_decision_id AND reservations.step = :key_step AND reservations.budget = :key_budget AND reservations.reserved_micros = :key_reserved_micros AND reservations.committed_micros = :key_committed_micros

-- insert_lease
INSERT INTO leases (budget, period_start, holder, left_micros, reserved_micros, committed_micros, expire_time) VALUES (:budget, :period_start, :holder, :left_micros, :reserved_micros, :committed_micros, :expire_time)

-- take_lease
UPDATE leases SET left_micros=(leases.left_micros - :taken_micros) WHERE leases.budget = :key_budget AND leases.period_start = :key_period_start AND leases.holder = :key_holder AND leases.left_micros >= :need_micros AND leases.expire_time > :now

-- stop_leases
UPDATE leases SET expire_time=0 WHERE leases.budget = :key_budget AND leases.period_start = :key_period_start AND (leases.holder = :key_holder OR leases.expire_time <= :now)

-- delete_stopped_leases
DELETE FROM leases WHERE leases.budget = :key_budget AND leases.period_start = :key_period_start AND leases.expire_time = 0

-- update_profile
UPDATE customers SET profile=:new_profile, update_time=:new_update_time WHERE customers.customer_key = :key_customer_key

-- update_trainable
UPDATE decisions SET trainable=:new_trainable WHERE decisions.decision_id = :key_decision_id AND decisions.step = :key_step

-- update_contact
UPDATE contacts SET start_time=:new_start_time, end_time=:new_end_time, is_open=:new_is_open WHERE contacts.decision_id = :key_decision_id AND contacts.step = :key_step

-- update_fact
UPDATE facts SET value=:new_value WHERE facts.name = :key_name

-- update_outcome
UPDATE outcomes SET step=:new_step, customer_key=:new_customer_key, status=:new_status WHERE outcomes.event_id = :key_event_id

-- erase_requests
DELETE FROM requests WHERE requests.decision_id IN (SELECT decisions.decision_id
FROM decisions
WHERE decisions.customer_key = :customer_key)

-- erase_decisions
UPDATE decisions SET request_id='', request_digest=:nothing, customer_key=:new_customer_key, trainable=:is_trainable, features='', context='', choice='', actions=NULL WHERE decisions.customer_key = :key_customer_key

-- erase_outcomes
UPDATE outcomes SET digest=:nothing, customer_key=:new_customer_key, csat=NULL, nps=NULL WHERE outcomes.customer_key = :key_customer_key

-- delete_contacts
DELETE FROM contacts WHERE contacts.customer_key = :customer_key

-- delete_identities
DELETE FROM identities WHERE identities.customer_key = :customer_key

-- move_decisions
UPDATE decisions SET customer_key=:new_customer_key WHERE decisions.customer_key = :key_customer_key

-- move_outcomes
UPDATE outcomes SET customer_key=:new_customer_key WHERE outcomes.customer_key = :key_customer_key

-- move_contacts
UPDATE contacts SET customer_key=:new_customer_key WHERE contacts.customer_key = :key_customer_key

-- move_identities
UPDATE identities SET customer_key=:new_customer_key WHERE identities.customer_key = :key_customer_key

-- insert_request
INSERT INTO requests (request_id, step, decision_id) VALUES (:request_id, :step, :decision_id) ON CONFLICT DO NOTHING

-- insert_customer
INSERT INTO customers (customer_key, profile, create_time, update_time, version) VALUES (:customer_key, :profile, :create_time, :update_time, :version) ON CONFLICT DO NOTHING

-- insert_identity
INSERT INTO identities (identity_hash, customer_key) VALUES (:identity_hash, :customer_key) ON CONFLICT DO NOTHING

-- insert_fact
INSERT INTO facts (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING

-- add_statistics
INSERT INTO statistics (bundle, hour, stage, channel, kind, step, observed, expected) VALUES (:bundle, :hour, :stage, :channel, :kind, :step, :observed, :expected) ON CONFLICT (bundle, hour, stage, channel, kind, step) DO UPDATE SET observed = (statistics.observed + excluded.observed), expected = (statistics.expected + excluded.expected)

-- add_budget
INSERT INTO budgets (budget, period_start, reserved_micros, committed_micros, held_price, price_time) VALUES (:budget, :period_start, :reserved_micros, :committed_micros, :held_price, :price_time) ON CONFLICT (budget, period_start) DO UPDATE SET reserved_micros = (budgets.reserved_micros + excluded.reserved_micros), committed_micros = (budgets.committed_micros + excluded.committed_micros), held_price = excluded.held_price, price_time = excluded.price_time

-- add_lease
INSERT INTO leases (budget, period_start, holder, left_micros, reserved_micros, committed_micros, expire_time) VALUES (:budget, :period_start, :holder, :left_micros, :reserved_micros, :committed_micros, :expire_time) ON CONFLICT (budget, period_start, holder) DO UPDATE SET reserved_micros = (leases.reserved_micros + excluded.reserved_micros), committed_micros = (leases.committed_micros + excluded.committed_micros)
