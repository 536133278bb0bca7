-- What the vault paid without our owing it, by a root that a thief of the anchorer's key made: the operator's loss, in the account's totals from then on.
ALTER TABLE withdrawal ADD COLUMN overpaid boolean NOT NULL DEFAULT false;

CREATE OR REPLACE FUNCTION refuse_change_of_withdrawal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.batch_number IS NOT NULL OR NEW.batch_number IS NULL
       OR (NEW.id, NEW.account_id, NEW.asset, NEW.amount, NEW.payee, NEW.create_time, NEW.overpaid)
          IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.asset, OLD.amount, OLD.payee, OLD.create_time, OLD.overpaid) THEN
        RAISE EXCEPTION 'withdrawal % only ever gets its batch, once', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
